package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// load is how smtp-source brings mail.
type load struct {
	bench    *bench
	sessions int
	length   int // of a message with its header, in bytes
}

// bring sends count messages to the customer with smtp-source, which keeps its
// connections. It gives the time from its start to its end.
func (l load) bring(ctx context.Context, addr string, count int) (time.Duration, error) {
	file, err := l.bench.messageFile(l.length)
	if err != nil {
		return 0, err
	}
	args := []string{"-4", "-d", "-C", "20", "-s", strconv.Itoa(min(l.sessions, count)), "-F", file, "-m", strconv.Itoa(count),
		"-f", sender, "-t", recipient, addr}
	cmd := exec.CommandContext(ctx, smtpSource, args...)
	dieWithUs(cmd)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	began := time.Now()
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("smtp-source: %w: %s", err, strings.TrimSpace(said.String()))
	}
	return time.Since(began), nil
}

// warmUp brings mail until the server is in its stride, and gives its speed in
// messages per second.
func (l load) warmUp(ctx context.Context, addr string, atLeast time.Duration) (float64, error) {
	for count := 2 * l.sessions; ; count *= 2 {
		took, err := l.bring(ctx, addr, count)
		if err != nil {
			return 0, err
		}
		if took >= atLeast {
			return float64(count) / took.Seconds(), nil
		}
	}
}

// accepts waits until a server greets, and takes one message if to is an address.
func accepts(ctx context.Context, addr, to string) error {
	return until(ctx, 5*time.Millisecond, addr+" takes mail", func() (bool, error) {
		err := tryOnce(addr, to)
		return err == nil, err
	})
}

func tryOnce(addr, to string) error {
	c, err := net.DialTimeout("tcp", addr, 2*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	r := bufio.NewReader(c)
	say := func(line, want string) error {
		if line != "" {
			if _, err := c.Write([]byte(line + "\r\n")); err != nil {
				return err
			}
		}
		got, err := reply(r)
		if err == nil && !strings.HasPrefix(got, want) {
			err = fmt.Errorf("%q was answered %q", line, got)
		}
		return err
	}
	talk := [][2]string{{"", "220"}}
	if to != "" {
		talk = append(talk, [2]string{"EHLO bench.example", "250"}, [2]string{"MAIL FROM:<" + sender + ">", "250"}, [2]string{"RCPT TO:<" + to + ">", "250"},
			[2]string{"DATA", "354"}, [2]string{"Subject: ready\r\n\r\nready\r\n.", "250"})
	}
	for _, t := range append(talk, [2]string{"QUIT", "221"}) {
		if err := say(t[0], t[1]); err != nil {
			return err
		}
	}
	return nil
}

// reply reads one reply and gives its last line.
func reply(r *bufio.Reader) (string, error) {
	for {
		line, err := r.ReadString('\n')
		if err != nil || len(line) < 4 || line[3] != '-' {
			return strings.TrimRight(line, "\r\n"), err
		}
	}
}
