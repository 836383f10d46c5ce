package spool

import (
	"fmt"
	"io"

	"bsmtpd/kv"
	"bsmtpd/mail"
)

// bodyRow counts who needs a body and how it is cut. A body without a row has
// one chunk and one user: the common case of a small message to one account
// costs no row.
type bodyRow struct {
	Refs   int       `cbor:"1,keyasint,omitempty"`
	Chunks int       `cbor:"2,keyasint"`
	Size   int64     `cbor:"3,keyasint,omitempty"`
	Staged mail.Time `cbor:"4,keyasint,omitempty"` // no envelope yet; dropped at this time
}

func readBody(r kv.Reader, id BodyID) (bodyRow, error) {
	v, err := r.Get(bodyKey(id))
	if err != nil {
		return bodyRow{}, err
	}
	if v == nil {
		return bodyRow{Refs: 1, Chunks: 1}, nil
	}
	var b bodyRow
	if err := kv.Decode(v, &b); err != nil {
		return bodyRow{}, brokenRow(fmt.Sprintf("body %s", id), err)
	}
	return b, nil
}

func (m *Moves) putBody(id BodyID, b bodyRow) error {
	if b.Refs == 1 && b.Chunks == 1 && b.Staged == 0 {
		return m.Tx.Delete(bodyKey(id))
	}
	return m.Tx.Set(bodyKey(id), kv.Encode(b))
}

// ref counts n more users of a body.
func (m *Moves) ref(id BodyID, n int) error {
	b, err := readBody(m.Tx, id)
	if undecodable(err) {
		m.report("", err)
		return nil
	}
	if err != nil {
		return err
	}
	b.Refs += n
	return m.putBody(id, b)
}

// unref counts one user less; the last one takes the body along.
func (m *Moves) unref(id BodyID) error {
	b, err := readBody(m.Tx, id)
	if undecodable(err) {
		m.report("", err)
		return nil
	}
	if err != nil {
		return err
	}
	if b.Refs--; b.Refs > 0 {
		return m.putBody(id, b)
	}
	return m.dropBody(id, b)
}

func (m *Moves) dropBody(id BodyID, b bodyRow) error {
	for n := range b.Chunks {
		if err := m.Tx.Delete(chunkKey(id, n)); err != nil {
			return err
		}
	}
	if b.Staged != 0 {
		if err := m.Tx.Delete(stagedKey(b.Staged, id)); err != nil {
			return err
		}
	}
	return m.Tx.Delete(bodyKey(id))
}

// dropDamaged drops a staged body whose row does not decode.
func (m *Moves) dropDamaged(id BodyID, why error) error {
	if err := m.setAside(bodyKey(id), "", why); err != nil {
		return err
	}
	return m.drop(string(u64([]byte(chunkPrefix), uint64(id))), func([]byte) bool { return true })
}

// Stage keeps one chunk of a body whose envelope is still to come. A chunk that
// was brought before is answered and not kept twice.
func (m *Moves) Stage(c Stage, chunk []byte) (Staged, error) {
	if len(chunk) == 0 || len(chunk) > ChunkBytes {
		return Staged{}, invalid("a staged chunk of %d bytes; it has 1 to %d", len(chunk), ChunkBytes)
	}
	if c.Body == 0 {
		if c.N != 0 {
			return Staged{}, invalid("chunk %d of no body", c.N)
		}
		id := m.NewID()
		b := bodyRow{Chunks: 1, Size: int64(len(chunk)), Staged: m.Now.Add(m.Set.StageLife)}
		if err := m.Tx.Set(stagedKey(b.Staged, id), nil); err != nil {
			return Staged{}, err
		}
		if err := m.putBody(id, b); err != nil {
			return Staged{}, err
		}
		return Staged{id}, m.Tx.Set(chunkKey(id, 0), chunk)
	}
	b, err := readBody(m.Tx, c.Body)
	switch {
	case err != nil:
		return Staged{}, err
	case b.Staged == 0:
		return Staged{}, invalid("body %s is not staged, or not any more", c.Body)
	case c.N < b.Chunks:
		return Staged{c.Body}, nil
	case c.N > b.Chunks:
		return Staged{}, invalid("chunk %d of body %s came before chunk %d", c.N, c.Body, b.Chunks)
	case b.Size+int64(len(chunk)) > MaxBodyBytes:
		return Staged{}, invalid("body %s is larger than %d bytes", c.Body, int64(MaxBodyBytes))
	}
	b.Chunks++
	b.Size += int64(len(chunk))
	if err := m.putBody(c.Body, b); err != nil {
		return Staged{}, err
	}
	return Staged{c.Body}, m.Tx.Set(chunkKey(c.Body, c.N), chunk)
}

// bodyReader reads a body chunk by chunk.
type bodyReader struct {
	r      kv.Reader
	id     BodyID
	n, end int
	rest   []byte
}

// Body implements reading. A chunk that is missing is an error of Kind Broken.
func (r Reader) Body(id BodyID) (io.ReadCloser, error) {
	b, err := readBody(r.R, id)
	if err != nil {
		return nil, err
	}
	return &bodyReader{r: r.R, id: id, end: b.Chunks}, nil
}

// Small gives a body of size bytes whole if it is in one chunk, with a single look
// at the disk; otherwise nil, and Body is to be asked.
func (r Reader) Small(id BodyID, size int64) ([]byte, error) {
	if size > ChunkBytes {
		return nil, nil
	}
	v, err := r.R.Get(chunkKey(id, 0))
	if err != nil || int64(len(v)) != size {
		return nil, err
	}
	return v, nil
}

func (b *bodyReader) Read(p []byte) (int, error) {
	for len(b.rest) == 0 {
		if b.n == b.end {
			return 0, io.EOF
		}
		v, err := b.r.Get(chunkKey(b.id, b.n))
		if err != nil {
			return 0, err
		}
		if v == nil {
			return 0, brokenRow(fmt.Sprintf("body %s", b.id), fmt.Errorf("chunk %d of %d is missing", b.n, b.end))
		}
		b.rest = v
		b.n++
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

// WriteTo gives each chunk to w whole, without a copy.
func (b *bodyReader) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for {
		if len(b.rest) > 0 {
			n, err := w.Write(b.rest)
			total += int64(n)
			b.rest = b.rest[n:]
			if err != nil {
				return total, err
			}
		}
		switch n, err := b.Read(nil); {
		case err == io.EOF:
			return total, nil
		case err != nil:
			return total, err
		case n == 0 && len(b.rest) == 0:
			return total, nil
		}
	}
}

// Close implements io.Closer; a body holds nothing open.
func (b *bodyReader) Close() error { return nil }
