package kv

import (
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// Bounds of what Decode takes; a row or command never comes near them.
const (
	maxArrayElements = 1 << 17
	maxMapPairs      = 1 << 12
	maxNestedLevels  = 16
)

var (
	encMode = must(cbor.CoreDetEncOptions().EncMode())
	decMode = must(cbor.DecOptions{
		MaxArrayElements: maxArrayElements,
		MaxMapPairs:      maxMapPairs,
		MaxNestedLevels:  maxNestedLevels,
		// Other servers' words and sessions' names come in any encoding. What
		// Encode wrote must be readable, or it would stop the node for good.
		UTF8: cbor.UTF8DecodeInvalid,
		// A field that this build does not know was written by a newer one;
		// dropping it silently would lose it at the next write.
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
	}.DecMode())
)

func must[T any](v T, err error) T {
	if err != nil {
		panic("kv: impossible CBOR options: " + err.Error())
	}
	return v
}

// Encode gives the one deterministic CBOR form of v (RFC 8949 section 4.2).
// Structs carry integer keys. It panics on a type that CBOR cannot hold.
func Encode(v any) []byte { return must(encMode.Marshal(v)) }

// Decode reads what Encode wrote into v, a pointer. It is safe on hostile bytes.
func Decode(data []byte, v any) error {
	if err := decMode.Unmarshal(data, v); err != nil {
		return fmt.Errorf("decode %T: %w", v, err)
	}
	return nil
}
