package damage

import (
	"os/exec"
	"syscall"
)

// dieWithUs makes a child end with this process, even if that is killed.
func dieWithUs(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
