package login

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"layeh.com/radius"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2866"
	"layeh.com/radius/rfc2869"
	"layeh.com/radius/rfc3162"
	"layeh.com/radius/rfc6911"

	"bsmtpd/directory"
	"bsmtpd/mail"
)

// errNoStatus: RFC 2866 section 5.1 wants an Acct-Status-Type in every request.
var errNoStatus = errors.New("no Acct-Status-Type")

// statusKinds are the accounting records that say who is online. The others
// (tunnels, failures) are answered and say nothing.
var statusKinds = map[rfc2866.AcctStatusType]directory.EventKind{
	rfc2866.AcctStatusType_Value_Start:         directory.EventStart,
	rfc2866.AcctStatusType_Value_Stop:          directory.EventStop,
	rfc2866.AcctStatusType_Value_InterimUpdate: directory.EventInterim,
	rfc2866.AcctStatusType_Value_AccountingOn:  directory.EventOn,
	rfc2866.AcctStatusType_Value_AccountingOff: directory.EventOff,
}

// accounting is what an Accounting-Request says.
type accounting struct {
	event directory.Event // Kind 0: nothing about a login
	name  string          // User-Name as it came
}

// readAccounting reads a request of the client at source. The login is left as
// it came: see Normalise.
func readAccounting(p *radius.Packet, source netip.Addr) (accounting, error) {
	status, err := rfc2866.AcctStatusType_Lookup(p)
	if err != nil {
		return accounting{}, errNoStatus
	}
	return accounting{
		event: directory.Event{
			Kind:    statusKinds[status],
			Address: framedAddress(p),
			NAS:     nasName(p, source),
			Session: text(rfc2866.AcctSessionID_Get(p)),
			Source:  sourceRadius,
			Delay:   min(time.Duration(rfc2866.AcctDelayTime_Get(p))*time.Second, directory.MaxDelay),
		},
		name: text(rfc2865.UserName_Get(p)),
	}, nil
}

// nasName is what the access server calls itself (RFC 2865 section 4.1 wants
// NAS-Identifier or NAS-IP-Address), else where its packet came from.
func nasName(p *radius.Packet, source netip.Addr) string {
	if id := text(rfc2865.NASIdentifier_Get(p)); id != "" {
		return id
	}
	for _, ip := range []net.IP{rfc2865.NASIPAddress_Get(p), rfc3162.NASIPv6Address_Get(p)} {
		if a, ok := netip.AddrFromSlice(ip); ok && !a.IsUnspecified() {
			return a.Unmap().String()
		}
	}
	return source.String()
}

// framedAddress is the customer's address: IPv4, else IPv6, else the first
// address of a delegated prefix that is one address long.
func framedAddress(p *radius.Packet) netip.Addr {
	if a, ok := netip.AddrFromSlice(rfc2865.FramedIPAddress_Get(p)); ok && told(a) {
		return a.Unmap()
	}
	if a, ok := netip.AddrFromSlice(rfc6911.FramedIPv6Address_Get(p)); ok && told(a) {
		return a
	}
	if n := rfc3162.FramedIPv6Prefix_Get(p); n != nil {
		if ones, bits := n.Mask.Size(); ones == bits {
			if a, ok := netip.AddrFromSlice(n.IP); ok && told(a) {
				return a
			}
		}
	}
	return netip.Addr{}
}

// told reports a real address. RFC 2865 section 5.8: 255.255.255.255 lets the
// user choose, 255.255.255.254 the access server.
func told(a netip.Addr) bool {
	return !a.IsUnspecified() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255}) && a != netip.AddrFrom4([4]byte{255, 255, 255, 254})
}

// text makes printable UTF-8 of an attribute; bytes that are not become hex, so
// that two different values stay different. At most 253 bytes.
func text(b []byte) string {
	b = bytes.TrimRight(b, "\x00") // some access servers count C's last byte
	if utf8.Valid(b) && !bytes.ContainsFunc(b, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return string(b)
	}
	if len(b) <= 64 {
		return "0x" + hex.EncodeToString(b)
	}
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Normalise makes a login of the name that a source gave: lower case, and with
// stripRealm without "@realm" behind it or "DOMAIN\" before it.
func Normalise(name string, stripRealm bool) (mail.Login, error) {
	name = strings.TrimSpace(name)
	if stripRealm {
		if i := strings.LastIndexByte(name, '\\'); i >= 0 {
			name = name[i+1:]
		}
		name, _, _ = strings.Cut(name, "@")
	}
	return mail.ParseLogin(name)
}

// wire cuts off what stands behind the length that a packet gives itself: RFC
// 2865 section 3 says that it is padding. nil: not a packet.
func wire(b []byte) []byte {
	if len(b) < 20 {
		return nil
	}
	n := int(b[2])<<8 | int(b[3])
	if n < 20 || n > len(b) || n > radius.MaxPacketLength {
		return nil
	}
	return b[:n]
}

// authentic checks the Request Authenticator (RFC 2866 section 3), or of a
// Status-Server the Message-Authenticator, which it must have (RFC 5997
// section 3).
func authentic(raw, secret []byte) bool {
	if radius.Code(raw[0]) != radius.CodeStatusServer {
		return radius.IsAuthenticRequest(raw, secret)
	}
	for i := 20; i+2 <= len(raw); {
		n := int(raw[i+1])
		if n < 2 || i+n > len(raw) {
			return false
		}
		if radius.Type(raw[i]) == rfc2869.MessageAuthenticator_Type && n == 2+md5.Size {
			mac := hmac.New(md5.New, secret)
			mac.Write(raw[:i+2])
			mac.Write(make([]byte, md5.Size))
			mac.Write(raw[i+n:])
			return hmac.Equal(mac.Sum(nil), raw[i+2:i+n])
		}
		i += n
	}
	return false
}

// response answers a request. RFC 2865 section 5.33: Proxy-State goes back as it
// came, in order.
func response(request *radius.Packet) ([]byte, error) {
	p := request.Response(radius.CodeAccountingResponse)
	for _, avp := range request.Attributes {
		if avp.Type == rfc2865.ProxyState_Type {
			p.Add(avp.Type, avp.Attribute)
		}
	}
	return p.Encode()
}
