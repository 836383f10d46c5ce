package node

import (
	"bsmtpd/cluster"
	"bsmtpd/config"
	"bsmtpd/host"
)

// Report is what Verify found.
type Report = cluster.Report

// Verify looks at every byte of a stopped node's data directory and changes
// nothing: see cluster.Verify.
func Verify(h host.Host, c config.Node, progress func(what string, done int64)) (*Report, error) {
	return cluster.Verify(h, c.DataDir, c.Name, progress)
}
