//go:build !linux

package main

import (
	"os/exec"
	"syscall"
)

// dieWithUs cannot be had here: after a kill of the bench some children may stay.
func dieWithUs(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{} }
