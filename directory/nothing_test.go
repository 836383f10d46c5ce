package directory

import (
	"iter"

	"bsmtpd/kv"
)

// nothing is a store without rows.
type nothing struct{}

var _ kv.Reader = nothing{}

func (nothing) Get([]byte) ([]byte, error) { return nil, nil }

func (nothing) Scan(_, _ []byte, _ *error) iter.Seq2[[]byte, []byte] {
	return func(func(k, v []byte) bool) {}
}

func (nothing) Last(_, _ []byte) ([]byte, []byte, error) { return nil, nil, nil }
