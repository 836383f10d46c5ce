package machine

import (
	"encoding/binary"
	"strings"
	"testing"

	"bsmtpd/cluster"
	"bsmtpd/kv"
)

// knownKinds asks a machine which kinds of commands it knows, by giving it fields
// that are none: only a kind that it knows complains about them.
func knownKinds(t *testing.T) map[uint64]bool {
	t.Helper()
	known := map[uint64]bool{}
	for kind := range uint64(300) {
		b := binary.BigEndian.AppendUint64([]byte{1}, uint64(beginning))
		b = binary.AppendUvarint(binary.AppendUvarint(b, kind), 1)
		b = append(b, 1, 0xff, 0) // fields of one byte, and nothing beside
		m, err := cluster.LoadMachine(newMemory())
		must(err)
		_, _, err = m.Apply(kv.NewOverlay(newMemory()), 1, b)
		if err == nil {
			t.Fatalf("a command of kind %d with nonsense for fields was taken", kind)
		}
		if !strings.Contains(err.Error(), "is not known") {
			known[kind] = true
		}
	}
	if len(known) < 18 {
		t.Fatalf("the machine knows only %d kinds", len(known))
	}
	return known
}
