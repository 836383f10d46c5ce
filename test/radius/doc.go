// Package radius tests login and contrib/freeradius with real peers from Debian:
// radclient and FreeRADIUS 3, on loopback.
package radius
