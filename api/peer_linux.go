package api

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// peerName names the user at the other end of a unix socket, "root" or "uid1000";
// empty where it cannot be told.
func peerName(c net.Conn) string {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return ""
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return ""
	}
	var cred *unix.Ucred
	if cerr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); cerr != nil || err != nil {
		return ""
	}
	if cred.Uid == 0 {
		return "root"
	}
	return fmt.Sprintf("uid%d", cred.Uid)
}
