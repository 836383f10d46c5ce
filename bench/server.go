package main

import (
	"context"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
	"time"
)

// The one customer of scenarios that need no more: all mail is for him.
const (
	customer       = "bench"
	customerDomain = "dest.example"
	recipient      = "user@" + customerDomain
	sender         = "sender@src.example"
)

// setup is what a scenario wants of a server.
type setup struct {
	hold        bool           // what comes in stays
	next        string         // host:port of the customer's server
	connections int            // to the customer's server at the same time; 0: the server's default
	settings    map[string]any // more of bsmtpd's, by key
}

// server is what is measured.
type server interface {
	name() string
	start(ctx context.Context, s setup) error // with an empty queue; returns when it takes mail
	stop()                                    // also of one that did not start
	addr() string
	queued(ctx context.Context) (int, error)   // messages
	settled(ctx context.Context) (bool, error) // nothing is being delivered
	flush(ctx context.Context) error           // try to deliver all mail now
	group() *group
}

// running is a process of ours.
type running struct {
	cmd  *exec.Cmd
	gone chan struct{} // closed when it has ended
}

// begin starts a process that ends with this one.
func begin(cmd *exec.Cmd) (*running, error) {
	dieWithUs(cmd)
	if cmd.Path == smtpSink && os.Geteuid() == 0 { // it refuses to be root
		u, err := user.Lookup("nobody")
		if err != nil {
			return nil, err
		}
		id, _ := strconv.ParseUint(u.Uid, 10, 32)
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(id), Gid: uint32(id)}
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	r := &running{cmd: cmd, gone: make(chan struct{})}
	go func() {
		cmd.Wait()
		close(r.gone)
	}()
	return r, nil
}

// end asks the process to end, and makes it after patience.
func (r *running) end(patience time.Duration) {
	if r == nil {
		return
	}
	r.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-r.gone:
	case <-time.After(patience):
		r.cmd.Process.Kill()
		<-r.gone
	}
}

// kill takes the process away without a word.
func (r *running) kill() {
	r.cmd.Process.Kill()
	<-r.gone
}

func (r *running) alive() bool {
	select {
	case <-r.gone:
		return false
	default:
		return true
	}
}

// freeAddr is a port of loopback where nobody listens, below those that the
// system gives to clients: a server on it can go down and come up again.
func freeAddr() (string, error) {
	var err error
	for range 100 {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(15_000+rand.IntN(15_000)))
		var l net.Listener
		if l, err = net.Listen("tcp", addr); err == nil {
			return addr, l.Close()
		}
	}
	return "", err
}
