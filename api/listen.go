package api

import (
	"context"
	"io"
	"net"
	"sync"
	"time"
)

// limit refuses connections beyond the configured number with a 503.
func (s *Server) limit(l net.Listener, name string) net.Listener {
	return &limitListener{Listener: l, slots: make(chan struct{}, s.config().MaxConnections),
		refused: func() { s.metrics.refused.WithLabelValues("connections").Inc() }}
}

type limitListener struct {
	net.Listener
	slots   chan struct{}
	refused func()
}

const busy = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 43\r\n\r\n" +
	"too many connections (api.max_connections)\n"

func (l *limitListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.slots <- struct{}{}:
			return &limitedConn{Conn: c, release: sync.OnceFunc(func() { <-l.slots })}, nil
		default:
			l.refused()
			c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
			io.WriteString(c, busy)
			c.Close()
		}
	}
}

type limitedConn struct {
	net.Conn
	release func()
}

func (c *limitedConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}

type connKey struct{}

// connContext keeps the connection for peerName.
func connContext(ctx context.Context, c net.Conn) context.Context {
	if l, ok := c.(*limitedConn); ok {
		c = l.Conn
	}
	return context.WithValue(ctx, connKey{}, c)
}
