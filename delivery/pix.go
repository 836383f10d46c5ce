package delivery

import "strings"

// isPix reports whether a banner's text was masked by a Cisco PIX "fixup"
// (B18): it overwrites all of the banner but the characters 2, 0 and the space
// with asterisks. Such a firewall also hides or garbles ESMTP, and older ones
// lose the end of a message if CRLF.CRLF is spread over two segments.
func isPix(banner string) bool {
	return strings.Contains(banner, "**") && strings.Trim(banner, "20* \t\n") == ""
}
