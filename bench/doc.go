// Command bench measures bsmtpd and Postfix side by side: in one run, by turns,
// on one file system, with the same load. "make bench" runs all of it;
//
//	go run ./bench -only accept4k,drain -quick
//
// runs some scenarios with small counts, to see that they work. The table says
// what was seen, in medians of three rounds, and what is to be reached; the same
// stands in .cache/bench as results.json and as results.md.
//
// Postfix needs root and Debian's package postfix (scripts/peers.sh installs it);
// without it bsmtpd is measured alone. smtp-source and smtp-sink of that package
// make the load and take the mail where the figure is a comparison; where they
// cannot do what is asked (many accounts, a slow line, times of single messages)
// the bench has its own.
//
// Everything happens on loopback, below one working directory, in processes that
// end with this one. Nothing is removed before the end: ext4 is slow in making
// files for minutes after many were removed.
package main
