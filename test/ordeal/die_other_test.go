//go:build !linux

package ordeal

import "os/exec"

func dieWithUs(*exec.Cmd) {}
