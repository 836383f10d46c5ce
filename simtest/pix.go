package simtest

import (
	"bytes"
	"io"
	"sync"
)

// fixup is the PIX: it looks for the end of a message packet by packet, and
// loses it when it is spread over two.
type fixup struct {
	r  io.Reader
	on bool
	mu sync.Mutex // guards on
	// The last bytes of the message so far, by the reader alone.
	tail []byte
}

var endOfData = []byte("\r\n.\r\n")

func (f *fixup) watch(on bool) {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.on, f.tail = on, nil
}

func (f *fixup) Read(p []byte) (int, error) {
	for {
		n, err := f.r.Read(p)
		f.mu.Lock()
		on := f.on
		f.mu.Unlock()
		if !on || n == 0 {
			return n, err
		}
		whole := append(f.tail[:len(f.tail):len(f.tail)], p[:n]...)
		if bytes.Contains(whole, endOfData) && !bytes.Contains(p[:n], endOfData) {
			if err != nil {
				return 0, err
			}
			continue // lost for ever
		}
		f.tail = whole[max(0, len(whole)-len(endOfData)+1):]
		return n, err
	}
}
