package main

import (
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// blackHole is a place that answers nothing: a listener that accepts nobody and
// whose queue is full, so that the system drops what asks for a connection.
type blackHole struct {
	fd    int
	inner []net.Conn // fill the queue
}

func openBlackHole(addr string) (*blackHole, error) {
	a, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		return nil, err
	}
	syscall.CloseOnExec(fd)
	h := &blackHole{fd: fd}
	syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}); err != nil {
		h.close()
		return nil, err
	}
	if err := syscall.Listen(fd, 0); err != nil {
		h.close()
		return nil, err
	}
	for range 10 {
		c, err := net.DialTimeout("tcp", addr, 200*time.Millisecond)
		if err != nil {
			return h, nil
		}
		h.inner = append(h.inner, c)
	}
	h.close()
	return nil, fmt.Errorf("%s does not swallow connections", addr)
}

func (h *blackHole) close() {
	for _, c := range h.inner {
		c.Close()
	}
	syscall.Close(h.fd)
}
