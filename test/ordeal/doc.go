// Package ordeal takes the finished program to its limits: killed again and again
// in the middle of its work, on a disk without room, without file descriptors and
// without memory, while a ledger of every acknowledged message is kept outside. At
// the end each of them has arrived, octet for octet, and every copy too many is
// explained. Everything runs on loopback.
package ordeal
