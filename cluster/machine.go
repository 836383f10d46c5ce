// Package cluster agrees on the order of commands, applies them, and says who
// leads.
//
// Machine is the replicated part: the same entries make the same rows on every
// replica. Node is what stands around it: hashicorp/raft, the log on disk, the
// proposer that gathers commands into entries, and snapshots.
package cluster

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"bsmtpd/directory"
	"bsmtpd/kv"
	"bsmtpd/mail"
	"bsmtpd/spool"
)

// Settings are the numbers that all replicas decide by. The leader proposes those
// of its configuration when they differ.
type Settings struct {
	Spool  spool.Settings   `cbor:"1,keyasint"`
	Limits directory.Limits `cbor:"2,keyasint"`
}

// DefaultSettings are the numbers that are promised (doc/promises.md).
func DefaultSettings() Settings {
	return Settings{Spool: spool.DefaultSettings(), Limits: directory.Limits{Quota: 20 << 20, QuotaFiltered: 1 << 30, SessionLife: 48 * time.Hour}}
}

// firstSettings are in force until a log holds others. They never change, also
// when the defaults do: an older build applied the same entries by them.
func firstSettings() Settings {
	return Settings{
		Spool: spool.Settings{
			Retry: 20 * time.Minute, SweepEvery: 4 * time.Hour, LoginWindow: 20 * time.Minute,
			OutRetryFirst: 5 * time.Minute, OutRetryMax: 4 * time.Hour, OutLife: 5 * 24 * time.Hour,
			StageLife: time.Hour, TrashLife: 72 * time.Hour,
		},
		Limits: directory.Limits{Quota: 20 << 20, QuotaFiltered: 1 << 30},
	}
}

// Check says what is impossible about s.
func (s Settings) Check() error {
	var errs []error
	for _, d := range []struct {
		name         string
		value, least int64
	}{
		{"retry", int64(s.Spool.Retry), 1},
		{"sweep", int64(s.Spool.SweepEvery), 1},
		{"login_window", int64(s.Spool.LoginWindow), 0},
		{"out_retry_first", int64(s.Spool.OutRetryFirst), 1},
		{"out_retry_max", int64(s.Spool.OutRetryMax), int64(s.Spool.OutRetryFirst)},
		{"out_life", int64(s.Spool.OutLife), 1},
		{"stage_life", int64(s.Spool.StageLife), 1},
		{"trash_life", int64(s.Spool.TrashLife), 0},
		{"quota", s.Limits.Quota, 1},
		{"quota_filtered", s.Limits.QuotaFiltered, 1},
		{"session_life", int64(s.Limits.SessionLife), 0},
	} {
		if d.value < d.least {
			errs = append(errs, fmt.Errorf("%s: %d is below %d", d.name, d.value, d.least))
		}
	}
	return errors.Join(errs...)
}

// The machine's own rows.
const (
	appliedKey  = "0/applied"  // index, term-free; and machine time: 16 bytes
	settingsKey = "0/settings" // Settings
)

// Machine applies entries. It is not safe for concurrent use; rows are read
// beside it through a kv.Reader.
type Machine struct {
	applied  uint64
	now      mail.Time
	settings Settings

	// directory counts the commands of this process's life that may have changed
	// accounts, domains or their names.
	directory uint64
}

// Reply is what one command led to.
type Reply struct {
	Value any
	Err   error
}

// LoadMachine reads a machine's state from its rows.
func LoadMachine(r kv.Reader) (*Machine, error) {
	m := &Machine{settings: firstSettings()}
	v, err := r.Get([]byte(appliedKey))
	if err != nil {
		return nil, err
	}
	if v != nil {
		if len(v) != 16 {
			return nil, fmt.Errorf("row %s has %d bytes instead of 16: the state database is damaged", appliedKey, len(v))
		}
		m.applied = binary.BigEndian.Uint64(v)
		m.now = mail.Time(binary.BigEndian.Uint64(v[8:]))
	}
	if v, err = r.Get([]byte(settingsKey)); err != nil || v == nil {
		return m, err
	}
	return m, kv.Decode(v, &m.settings)
}

// Applied is the index of the last entry applied.
func (m *Machine) Applied() uint64 { return m.applied }

// Now is the machine's time: that of the last entry, and it never goes back.
func (m *Machine) Now() mail.Time { return m.now }

// Settings are those in force.
func (m *Machine) Settings() Settings { return m.settings }

// Apply applies the entry at an index to tx. It gives one reply for each of its
// commands, and what the rows now ask for. An error means that this node must
// stop: the entry cannot be understood, or the disk fails. The state in tx is
// then not to be used.
//
// An entry at or below Applied was applied before: no replies, no error.
func (m *Machine) Apply(tx kv.Tx, index uint64, entry []byte) ([]Reply, []spool.Effect, error) {
	if index <= m.applied {
		return nil, nil, nil
	}
	at, commands, err := decodeEntry(entry)
	if err != nil {
		return nil, nil, fmt.Errorf("log entry %d: %w", index, err)
	}
	m.now = max(m.now, at)
	replies := make([]Reply, len(commands))
	var effects []spool.Effect
	place := 0
	newID := func() mail.ID {
		place++
		return mail.NewID(index, place-1)
	}
	over := kv.NewOverlay(tx)
	for i := range commands {
		reply, eff, err := m.applyOne(over, &commands[i], newID)
		if err != nil {
			return nil, nil, fmt.Errorf("log entry %d, command %d: %w", index, i, err)
		}
		replies[i] = reply
		effects = append(effects, eff...)
	}
	return replies, effects, m.mark(tx, index)
}

// Skip notes an entry that carries no commands (Raft's own).
func (m *Machine) Skip(tx kv.Tx, index uint64) error {
	if index <= m.applied {
		return nil
	}
	return m.mark(tx, index)
}

func (m *Machine) mark(tx kv.Tx, index uint64) error {
	m.applied = index
	b := binary.BigEndian.AppendUint64(nil, index)
	return tx.Set([]byte(appliedKey), binary.BigEndian.AppendUint64(b, uint64(m.now)))
}

func (m *Machine) applyOne(tx *kv.Overlay, c *command, newID func() mail.ID) (Reply, []spool.Effect, error) {
	r, ok := rules[c.kind]
	if !ok || c.version > r.version {
		return Reply{}, nil, fmt.Errorf("command kind %d version %d is not known: this build is older than the one that proposed it; install that one", c.kind, c.version)
	}
	settings := m.settings
	mv := moves{settings: &settings}
	mv.Moves = spool.Moves{Tx: tx, Now: m.now, Set: m.settings.Spool, NewID: newID, Charge: mv.charge, Refund: mv.refund}
	value, err := r.apply(&mv, c)
	if err != nil {
		tx.Discard()
		// A file that cannot be read here may be sound elsewhere: an answer would
		// make this replica another than the rest.
		if kv.IsDamage(err) || !isAnswer(err) {
			return Reply{}, nil, err
		}
		return Reply{Err: err}, nil, nil
	}
	if err := tx.Apply(); err != nil {
		return Reply{}, nil, err
	}
	m.settings = settings
	if c.kind.changesDirectory() {
		m.directory++
	}
	return Reply{Value: value}, mv.Effects, nil
}

// Hash is a digest of all rows: equal on two replicas that have applied the same
// entries.
func Hash(r kv.Reader) ([sha256.Size]byte, error) {
	h := sha256.New()
	var n [8]byte
	var err error
	write := func(b []byte) {
		binary.BigEndian.PutUint64(n[:], uint64(len(b)))
		h.Write(n[:])
		h.Write(b)
	}
	for k, v := range r.Scan([]byte{0}, []byte{0xff}, &err) {
		write(k)
		write(v)
	}
	return [sha256.Size]byte(h.Sum(nil)), err
}
