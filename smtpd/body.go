package smtpd

import (
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"

	"bsmtpd/host"
	"bsmtpd/mail"
)

const (
	chunkBytes = 16 << 10 // the pieces in which bodies lie in memory
	tempPrefix = "smtpd-" // of the names of temporary files
)

type chunk [chunkBytes]byte

// bodies makes bodies and bounds the memory of all of them together.
type bodies struct {
	fs   host.FS
	dir  string
	log  *slog.Logger
	used atomic.Int64 // bytes of memory in use
	seq  atomic.Uint64
	pool sync.Pool
	m    *metrics
}

// prepare makes the directory of temporary files and removes what an earlier
// run has left there: no mail, for nothing in it was ever acknowledged.
func (s *bodies) prepare() error {
	if err := s.fs.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("make the directory for large messages: %w", err)
	}
	names, err := s.fs.List(s.dir)
	if err != nil {
		return fmt.Errorf("read the directory for large messages: %w", err)
	}
	for _, name := range names {
		if strings.HasPrefix(name, tempPrefix) {
			if err := s.fs.Remove(s.fs.PathJoin(s.dir, name)); err != nil {
				return fmt.Errorf("remove a leftover: %w", err)
			}
		}
	}
	return nil
}

// body is one message while it comes in: in memory, and when it is large and
// memory gets scarce in a temporary file with one chunk of memory before it. It
// belongs to one goroutine. close gives everything back and must be called.
type body struct {
	s       *bodies
	memory  int64 // what all bodies may use
	spillAt int64 // no more than this goes to a file

	chunks []*chunk
	fill   int   // used octets of the last chunk
	size   int64 // octets in all
	file   vfs.File
	name   string
}

// open prepares b for a message that begins with head. How large a message may
// be is not b's business.
func (b *body) open(s *bodies, set *settings, head []byte) *refusal {
	*b = body{s: s, memory: int64(set.MaxBodyMemory), spillAt: int64(set.SpillAt), chunks: b.chunks[:0]}
	for len(head) > 0 {
		p, r := b.space()
		if r != nil {
			return r
		}
		n := copy(p, head)
		b.took(n)
		head = head[n:]
	}
	return nil
}

// space is where the next octets go, at least one. After a refusal b holds
// nothing.
func (b *body) space() ([]byte, *refusal) {
	if len(b.chunks) == 0 || b.fill == chunkBytes {
		if r := b.grow(); r != nil {
			b.close()
			return nil, r
		}
	}
	return b.chunks[len(b.chunks)-1][b.fill:], nil
}

// took says how many octets were put there.
func (b *body) took(n int) {
	b.fill += n
	b.size += int64(n)
}

// grow makes room in the last chunk.
func (b *body) grow() *refusal {
	switch {
	case b.file != nil:
		return b.flush()
	case len(b.chunks) > 0 && b.mustSpill():
		return b.spill()
	}
	if b.s.used.Add(chunkBytes) > b.memory {
		b.s.used.Add(-chunkBytes)
		return refuse(reasonMemory, 452, mail.Status{4, 3, 1}, "too many messages are coming in at once; try again later")
	}
	c, _ := b.s.pool.Get().(*chunk)
	if c == nil {
		c = new(chunk)
	}
	b.chunks, b.fill = append(b.chunks, c), 0
	return nil
}

// mustSpill says that b may not grow in memory. A large message may as long as
// half of the memory is free. The last quarter is for the first chunks of messages
// only: else a few clients who send half a message and no more would keep all
// others out.
func (b *body) mustSpill() bool {
	used := b.s.used.Load()
	large := int64(len(b.chunks)+1)*chunkBytes > b.spillAt
	return large && used >= b.memory/2 || used >= b.memory/4*3
}

// spill moves everything to a temporary file and keeps one chunk.
func (b *body) spill() *refusal {
	b.name = b.s.fs.PathJoin(b.s.dir, tempPrefix+strconv.FormatUint(b.s.seq.Add(1), 10)+".body")
	f, err := b.s.fs.Create(b.name, vfs.WriteCategoryUnspecified)
	if err != nil {
		b.name = ""
		return b.failed(err)
	}
	b.file = f
	b.s.m.spilled.Inc()
	return b.flush()
}

// flush writes the chunks to the file and keeps the last of them, empty.
func (b *body) flush() *refusal {
	last := len(b.chunks) - 1
	for i, c := range b.chunks {
		n := chunkBytes
		if i == last {
			n = b.fill
		}
		if _, err := b.file.Write(c[:n]); err != nil {
			return b.failed(err)
		}
	}
	b.release(b.chunks[:last])
	b.chunks[0], b.fill = b.chunks[last], 0
	b.chunks = b.chunks[:1]
	return nil
}

func (b *body) failed(err error) *refusal {
	b.s.log.Error("a large message could not be written to its temporary file", "dir", b.s.dir, "err", err)
	return refuse(reasonLowSpace, 452, mail.Status{4, 3, 1}, "no room for a large message now; try again later")
}

// reader gives the whole message; use it before close.
func (b *body) reader() (io.Reader, *refusal) {
	if b.file == nil {
		return &chunkReader{chunks: b.chunks, left: b.size}, nil
	}
	if b.fill > 0 {
		if r := b.flush(); r != nil {
			return nil, r
		}
	}
	return io.NewSectionReader(b.file, 0, b.size), nil
}

func (b *body) release(chunks []*chunk) {
	for i, c := range chunks {
		b.s.pool.Put(c)
		chunks[i] = nil
	}
	b.s.used.Add(-chunkBytes * int64(len(chunks)))
}

// close gives back memory and file. Closing twice, or what was never opened, is
// nothing.
func (b *body) close() {
	if b.s == nil {
		return
	}
	b.release(b.chunks)
	if b.file != nil {
		b.file.Close()
		if err := b.s.fs.Remove(b.name); err != nil {
			b.s.log.Warn("a temporary file could not be removed; the next start does it", "file", b.name, "err", err)
		}
	}
	*b = body{chunks: b.chunks[:0]}
}

// chunkReader reads a message that lies in memory.
type chunkReader struct {
	chunks []*chunk
	off    int // in the first chunk
	left   int64
}

func (r *chunkReader) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.chunks[0][r.off:min(int64(chunkBytes), int64(r.off)+r.left)])
	r.off += n
	r.left -= int64(n)
	if r.off == chunkBytes {
		r.chunks, r.off = r.chunks[1:], 0
	}
	return n, nil
}
