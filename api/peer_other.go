//go:build !linux

package api

import "net"

func peerName(net.Conn) string { return "" }
