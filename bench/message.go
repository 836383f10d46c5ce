package main

import (
	"encoding/base64"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const messageHeader = "From: <" + sender + ">\r\nTo: <" + recipient + ">\r\nSubject: bench\r\nDate: Mon, 02 Jan 2006 15:04:05 +0000\r\n" +
	"Message-Id: <bench@src.example>\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n"

// message has length bytes and ends with a line. It is an attachment of chance in
// base64, for nobody shall gain by compressing it.
func message(chance *rand.Rand, length int) string {
	const row = 76
	var b strings.Builder
	b.Grow(length)
	b.WriteString(messageHeader)
	var raw [row / 4 * 3]byte
	var text [row]byte
	for b.Len() < length-2 {
		for i := 0; i < len(raw); i += 8 {
			v := chance.Uint64()
			for j := i; j < min(i+8, len(raw)); j++ {
				raw[j] = byte(v)
				v >>= 8
			}
		}
		base64.StdEncoding.Encode(text[:], raw[:])
		b.Write(text[:min(row, length-2-b.Len())])
		if b.Len() < length-4 {
			b.WriteString("\r\n")
		}
	}
	return b.String() + "\r\n"
}

// messageFile is a message for smtp-source, which ends the lines itself.
func (b *bench) messageFile(length int) (string, error) {
	file := filepath.Join(b.dir, "message-"+strconv.Itoa(length))
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	text := message(rand.New(rand.NewPCG(1, uint64(length))), length)
	return file, os.WriteFile(file, []byte(strings.ReplaceAll(text, "\r\n", "\n")), 0o644)
}
