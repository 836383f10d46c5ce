// Package peers tests the finished program from outside: "bsmtpd serve" with a
// configuration file, real mail servers and clients from Debian on both sides of
// it, operators' commands, kills, and input that nobody should send. Everything
// runs on loopback; what a test needs and does not find, it says and skips.
package peers
