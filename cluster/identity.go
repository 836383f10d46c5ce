package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"

	"bsmtpd/host"
	"bsmtpd/mail"
)

// Names in a data directory.
const (
	identityName = "identity.json"
	logDir       = "log"
	stateDir     = "state"
	snapshotDir  = "snapshots"
	maxIdentity  = 64 << 10
)

// Identity says whose data directory it is.
type Identity struct {
	Cluster string    `json:"cluster"` // chosen at random when the cluster was made
	Node    string    `json:"node"`
	Created mail.Time `json:"created"`

	// Ready: the node has taken part in its cluster, so its directory holds
	// something that must never go missing.
	Ready bool `json:"ready"`
}

// openIdentity is the start-up guard (C14). It makes the identity of a new node
// where dir does not exist yet, or is empty and init says that this is meant.
// Everything else it refuses: an empty directory is more often a disk that is
// not mounted than a new node, and starting on it would look like a spool that
// has lost all its mail.
func openIdentity(h host.Host, dir, node string, init bool, now mail.Time) (Identity, error) {
	id, fresh, err := lookIdentity(h, dir, node, init)
	switch {
	case err != nil:
		return Identity{}, err
	case fresh:
		id, err = newIdentity(h, dir, node, now)
	}
	if err != nil {
		return id, err
	}
	// What is in it is the customers' mail, whatever an installer thought.
	if err := h.FS.Chmod(dir, 0o700); err != nil {
		return Identity{}, fmt.Errorf("close the data directory to others: %w", err)
	}
	return id, nil
}

// lookIdentity is openIdentity without making or changing anything; fresh: there
// is no directory, or an empty one and that is meant.
func lookIdentity(h host.Host, dir, node string, init bool) (id Identity, fresh bool, err error) {
	names, err := h.FS.List(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return id, true, nil
	case err != nil:
		return id, false, fmt.Errorf("read data directory: %w", err)
	}
	names = slices.DeleteFunc(names, func(n string) bool {
		return n == "lost+found" || n == identityName+".tmp" // a fresh file system; a crash while it was written
	})
	if len(names) == 0 {
		if !init {
			return id, false, mail.Fail(mail.Denied, fmt.Sprintf("data directory %s is there but empty; if its disk is not mounted, mount it; if this is a new node, start it once with --init", dir))
		}
		return id, true, nil
	}
	if !slices.Contains(names, identityName) {
		return id, false, mail.Fail(mail.Denied, fmt.Sprintf("data directory %s has no %s but other files (%s): it is not one of bsmtpd's, or a part of it was lost; name another with --data, or restore all of it from one backup", dir, identityName, names[0]))
	}
	id, err = readIdentity(h, dir, node, names)
	return id, false, err
}

func newIdentity(h host.Host, dir, node string, now mail.Time) (Identity, error) {
	id := Identity{Cluster: fmt.Sprintf("%016x", h.Rand("cluster-id").Uint64()), Node: node, Created: now}
	if err := h.FS.MkdirAll(dir, 0o700); err != nil {
		return id, fmt.Errorf("make data directory: %w", err)
	}
	if err := host.SyncDir(h.FS, h.FS.PathDir(dir)); err != nil {
		return id, fmt.Errorf("make data directory: %w", err)
	}
	return id, writeIdentity(h, dir, id)
}

func writeIdentity(h host.Host, dir string, id Identity) error {
	data, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return err
	}
	if err := host.WriteFile(h.FS, path.Join(dir, identityName), append(data, '\n')); err != nil {
		return fmt.Errorf("write the data directory's identity: %w", err)
	}
	return nil
}

func readIdentity(h host.Host, dir, node string, names []string) (Identity, error) {
	data, err := host.ReadFile(h.FS, path.Join(dir, identityName), maxIdentity)
	if err != nil {
		return Identity{}, fmt.Errorf("read the data directory's identity: %w", err)
	}
	var id Identity
	if err := json.Unmarshal(data, &id); err != nil || id.Cluster == "" || id.Node == "" {
		return Identity{}, mail.Fail(mail.Broken, fmt.Sprintf("%s is damaged; restore it from a backup of this node: it names the cluster and the node", path.Join(dir, identityName)))
	}
	if id.Node != node {
		return Identity{}, mail.Fail(mail.Denied, fmt.Sprintf("data directory %s belongs to node %q, and this is node %q: check node.name and node.data", dir, id.Node, node))
	}
	if id.Ready {
		for _, sub := range []string{logDir, stateDir, snapshotDir} {
			if !slices.Contains(names, sub) {
				return Identity{}, mail.Fail(mail.Broken, fmt.Sprintf("data directory %s of node %q lacks its folder %s: mail that was accepted is missing; restore it from a backup, do not start on it", dir, node, sub))
			}
		}
	}
	return id, nil
}
