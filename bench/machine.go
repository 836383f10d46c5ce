package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// machine is where figures were seen; without it they say nothing.
type machine struct {
	Time    string `json:"time"`
	CPU     string `json:"cpu"`
	Cores   int    `json:"cores"`
	Memory  string `json:"memory"`
	Disk    string `json:"disk"`
	Kernel  string `json:"kernel"`
	Go      string `json:"go"`
	Bsmtpd  string `json:"bsmtpd"`
	Postfix string `json:"postfix"`
	Load    string `json:"load" doc:"average over 1, 5 and 15 minutes before the run"`
}

func (m machine) String() string {
	return fmt.Sprintf("%s; %d × %s, %s memory, %s; Linux %s, %s; bsmtpd %s, Postfix %s; load before the run %s",
		m.Time, m.Cores, m.CPU, m.Memory, m.Disk, m.Kernel, m.Go, m.Bsmtpd, m.Postfix, m.Load)
}

func look(ctx context.Context, dir, binary string) machine {
	m := machine{
		Time: time.Now().UTC().Format("2006-01-02 15:04 UTC"), Cores: runtime.NumCPU(), Go: runtime.Version(),
		CPU: "unknown processor", Postfix: "none", Bsmtpd: "unknown",
	}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
				m.CPU = strings.TrimSpace(value)
				break
			}
		}
	}
	total, _ := field("/proc/meminfo", "MemTotal:")
	m.Memory = fmt.Sprintf("%d GiB", (total+1<<29)>>30)
	m.Disk = fileSystem(dir)
	m.Kernel = one(os.ReadFile("/proc/sys/kernel/osrelease"))
	m.Load = one(os.ReadFile("/proc/loadavg"))
	if f := strings.Fields(m.Load); len(f) >= 3 {
		m.Load = strings.Join(f[:3], " ")
	}
	m.Bsmtpd = version(ctx, binary)
	if out, err := exec.CommandContext(ctx, "/usr/sbin/postconf", "-d", "-h", "mail_version").Output(); err == nil {
		m.Postfix = one(out, nil)
	}
	return m
}

func one(b []byte, _ error) string { return string(bytes.TrimSpace(b)) }

// version of bsmtpd: the commit, if the sources are in a checkout.
func version(ctx context.Context, binary string) string {
	if out, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty").Output(); err == nil {
		return one(out, nil)
	}
	out, err := exec.CommandContext(ctx, binary, "--version").Output()
	return strings.TrimPrefix(one(out, err), "bsmtpd version ")
}

// fileSystem names the kind of a directory's file system.
func fileSystem(dir string) string {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return "unknown disk"
	}
	kind, ok := map[int64]string{0xef53: "ext4", 0x58465342: "xfs", 0x9123683e: "btrfs", 0x01021994: "tmpfs", 0x794c7630: "overlay", 0x2fc12fc1: "zfs"}[int64(s.Type)]
	if !ok {
		kind = fmt.Sprintf("file system %#x", s.Type)
	}
	return fmt.Sprintf("%s, %d GiB free", kind, s.Bavail*uint64(s.Bsize)>>30)
}
