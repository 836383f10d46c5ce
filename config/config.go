// Package config reads, checks and watches the settings.
//
// Each package that has settings declares a struct Config with the tags key,
// default, doc, reload and secret on its fields; Config puts them together. From
// the tags come the file's form, the names in the environment, the defaults and
// doc/config.md.
//
// Fields may be string, bool, whole numbers, float64, time.Duration, mail.Size,
// anything with UnmarshalText, lists of these, structs (a section) and lists of
// structs. A field without a key is no setting.
package config

import (
	"errors"
	"fmt"
	"reflect"
	"time"

	"bsmtpd/api"
	"bsmtpd/bounce"
	"bsmtpd/delivery"
	"bsmtpd/directory"
	"bsmtpd/login"
	"bsmtpd/mail"
	"bsmtpd/smtpd"
	"bsmtpd/spool"
)

// Config is every setting of a node.
type Config struct {
	Node Node `key:"node" doc:"The node itself: its name, its data, its log and how it keeps the spool."`

	SMTPD    smtpd.Config    `key:"smtpd" doc:"The edge: where mail comes in."`
	Login    login.Config    `key:"login" doc:"How the node learns that a customer is online. The HTTP hook belongs to the API."`
	Delivery delivery.Config `key:"delivery" doc:"How mail goes out: the pushes to customers' servers, and mail to the world."`
	Bounce   bounce.Config   `key:"bounce" doc:"Notifications to senders about what became of their mail (RFC 3464)."`
	API      api.Config      `key:"api" doc:"The HTTP API: the one door for commands, hooks, pages and metrics. The admin socket in the data directory is always there."`

	Spool Spool `key:"spool" doc:"When queued mail is tried and how long it is kept. These settings belong to the cluster: the leader's are in force on every node."`
	Quota Quota `key:"quota" doc:"How much an account may hold, mailbox and queue together, when the account itself says nothing. These settings belong to the cluster: the leader's are in force on every node."`
}

// configSchema is the form of Config; nothing changes it.
var configSchema = schemaOf(reflect.TypeFor[Config]())

// Check finds what is wrong between the sections; each checks itself.
func (c Config) Check() error {
	var bad checks
	bad.addresses("smtpd.listen", c.SMTPD.Listen, "api.address", c.API.Address)
	return errors.Join(bad...)
}

// Node is the settings of the node as a whole.
type Node struct {
	Name            string        `key:"name" default:"node1" doc:"Name of this node; no other node of the cluster may have it, and it never changes."`
	DataDir         string        `key:"data_dir" default:"data" doc:"Directory for everything the node keeps. It is made if it is not there; one that belongs to another node or cluster is refused."`
	Hostname        string        `key:"hostname" default:"" doc:"Full name that the node gives in greetings and headers. Empty: what the system calls itself."`
	ProviderDomains []mail.Domain `key:"provider_domains" default:"" doc:"The provider's own mail domains: mail to LOGIN@DOMAIN goes to the account's mailbox. Empty: there are no mailboxes."`
	StopTimeout     time.Duration `key:"stop_timeout" default:"30s" doc:"How long the node waits, when it stops, for each of its parts in turn: what takes mail and logins in (smtpd.stop_timeout), then pushes (delivery.stop_timeout), then the API. What has not ended by then is left behind, so let it be the longest of the three."`
	Log             Log           `key:"log" doc:"The log on standard error: one line for each event in a message's life, with its ID."`
	LowSpace        LowSpace      `key:"low_space" doc:"What to do when the file system of the data directory fills up. Below the soft mark new mail is refused with 452 4.3.1, and what is queued still goes out; below the hard mark the node refuses mail with 421, is not ready, and pauses pushes."`
	Raft            Raft          `key:"raft" doc:"The replicated log."`
	Store           Store         `key:"store" doc:"The database of the spool."`
}

// Log is how the log is written.
type Log struct {
	Level  string `key:"level" default:"info" reload:"yes" doc:"Least level that is written: debug, info, warn or error."`
	Format string `key:"format" default:"text" doc:"Form of a line: text (key=value) or json."`
}

// LowSpace is the watermarks of the data directory's file system.
type LowSpace struct {
	SoftBytes  mail.Size     `key:"soft_bytes" default:"1GiB" reload:"yes" doc:"Free bytes below which new mail is refused. 0: never."`
	HardBytes  mail.Size     `key:"hard_bytes" default:"256MiB" reload:"yes" doc:"Free bytes below which the node stops working on mail. At least 128MiB, because the log takes its room 64 MiB at a time. 0: never."`
	SoftInodes int64         `key:"soft_inodes" default:"2000" reload:"yes" doc:"Free inodes below which new mail is refused. 0: never. Ignored where the file system does not count them."`
	HardInodes int64         `key:"hard_inodes" default:"500" reload:"yes" doc:"Free inodes below which the node stops working on mail. 0: never."`
	CheckEvery time.Duration `key:"check_every" default:"2s" reload:"yes" doc:"How often the free space is looked at."`
}

// Raft is the settings of the replicated log.
type Raft struct {
	ApplyTimeout  time.Duration `key:"apply_timeout" default:"10s" doc:"How long a change may wait for a majority. Past it the client is told to try again: 451 4.3.0."`
	Heartbeat     time.Duration `key:"heartbeat" default:"50ms" doc:"How long a node that hears of no leader waits before it stands for election, once to twice this time. A node that is the only one needs no longer: it leads so soon after its start."`
	SnapshotBytes mail.Size     `key:"snapshot_bytes" default:"256MiB" doc:"Bytes of log after which the state is written to the database and the log is cut; also about what is replayed after a restart."`
}

// Store is the settings of the database.
type Store struct {
	CacheSize    mail.Size `key:"cache_size" default:"64MiB" doc:"Memory for blocks that were read."`
	MemtableSize mail.Size `key:"memtable_size" default:"16MiB" doc:"Memory for each of the at most four tables of changes that are not written yet."`
}

// minHardBytes leaves room for a segment of the log and what is in flight when
// mail is stopped.
const minHardBytes = mail.Size(128 << 20)

// Check implements the check of a section.
func (n Node) Check() error {
	var bad checks
	bad.when(!validName(n.Name), "name", "%q is not allowed; use 1 to 63 letters, digits, - and _", n.Name)
	bad.when(n.DataDir == "", "data_dir", "must not be empty; name a directory")
	if n.Hostname != "" {
		bad.domain("hostname", n.Hostname)
	}
	for i, d := range n.ProviderDomains {
		bad.domain(fmt.Sprintf("provider_domains[%d]", i), string(d))
	}
	bad.between("stop_timeout", n.StopTimeout, time.Second, time.Hour)
	switch n.Log.Level {
	case "debug", "info", "warn", "error":
	default:
		bad.when(true, "log.level", "%q is not allowed; use debug, info, warn or error", n.Log.Level)
	}
	bad.when(n.Log.Format != "text" && n.Log.Format != "json", "log.format", "%q is not allowed; use text or json", n.Log.Format)
	bad.when(n.LowSpace.HardBytes > n.LowSpace.SoftBytes, "low_space.hard_bytes",
		"%s is above soft_bytes, %s; use the same or less", n.LowSpace.HardBytes, n.LowSpace.SoftBytes)
	bad.when(n.LowSpace.HardBytes > 0 && n.LowSpace.HardBytes < minHardBytes, "low_space.hard_bytes",
		"%s is too little; the log takes its room 64 MiB at a time: use %s or more, or 0 for never", n.LowSpace.HardBytes, minHardBytes)
	bad.when(n.LowSpace.SoftInodes < 0, "low_space.soft_inodes", "%d is not allowed; use 0 or more", n.LowSpace.SoftInodes)
	bad.when(n.LowSpace.HardInodes < 0, "low_space.hard_inodes", "%d is not allowed; use 0 or more", n.LowSpace.HardInodes)
	bad.when(n.LowSpace.HardInodes > n.LowSpace.SoftInodes, "low_space.hard_inodes",
		"%d is above soft_inodes, %d; use the same or less", n.LowSpace.HardInodes, n.LowSpace.SoftInodes)
	bad.between("low_space.check_every", n.LowSpace.CheckEvery, 100*time.Millisecond, time.Minute)
	bad.between("raft.apply_timeout", n.Raft.ApplyTimeout, time.Second, 5*time.Minute)
	bad.between("raft.heartbeat", n.Raft.Heartbeat, 10*time.Millisecond, time.Hour)
	bad.sizeBetween("raft.snapshot_bytes", n.Raft.SnapshotBytes, 1<<20, 1<<40)
	bad.sizeBetween("store.cache_size", n.Store.CacheSize, 1<<20, 1<<40)
	bad.sizeBetween("store.memtable_size", n.Store.MemtableSize, 1<<20, 1<<30)
	return errors.Join(bad...)
}

// Spool is spool.Settings as the file writes it.
type Spool struct {
	Retry         time.Duration `key:"retry" default:"20m" reload:"yes" doc:"An account with queued mail is tried this long after a failed attempt."`
	Sweep         time.Duration `key:"sweep" default:"4h" reload:"yes" doc:"Every queue with mail is looked at this often, whatever its timer says, so that nothing is forgotten."`
	LoginWindow   time.Duration `key:"login_window" default:"20m" reload:"yes" doc:"A login starts at most one attempt per account in this time; a login within it is recorded only. 0: every login starts one."`
	OutRetryFirst time.Duration `key:"out_retry_first" default:"5m" reload:"yes" doc:"Mail to the world is tried again after this; each failed attempt doubles it."`
	OutRetryMax   time.Duration `key:"out_retry_max" default:"4h" reload:"yes" doc:"The doubled time never grows above this."`
	OutLife       time.Duration `key:"out_life" default:"5d" reload:"yes" doc:"Mail to the world that cannot be delivered for this long goes back to its sender. Customers' mail has no such end."`
	StageLife     time.Duration `key:"stage_life" default:"1h" reload:"yes" doc:"A body whose message was never finished, because a node died, is dropped after this."`
	TrashLife     time.Duration `key:"trash_life" default:"72h" reload:"yes" doc:"Mail that an operator removed can be brought back for this long. 0: it cannot."`
}

// Settings are the values as the spool takes them.
func (s Spool) Settings() spool.Settings {
	return spool.Settings{
		Retry: s.Retry, SweepEvery: s.Sweep, LoginWindow: s.LoginWindow,
		OutRetryFirst: s.OutRetryFirst, OutRetryMax: s.OutRetryMax, OutLife: s.OutLife,
		StageLife: s.StageLife, TrashLife: s.TrashLife,
	}
}

// Check implements the check of a section.
func (s Spool) Check() error {
	const day = 24 * time.Hour
	var bad checks
	bad.between("retry", s.Retry, time.Second, 7*day)
	bad.between("sweep", s.Sweep, time.Minute, 7*day)
	bad.between("login_window", s.LoginWindow, 0, 7*day)
	bad.between("out_retry_first", s.OutRetryFirst, time.Second, day)
	bad.between("out_retry_max", s.OutRetryMax, s.OutRetryFirst, 7*day)
	bad.between("out_life", s.OutLife, time.Minute, 365*day)
	bad.between("stage_life", s.StageLife, time.Minute, 7*day)
	bad.between("trash_life", s.TrashLife, 0, 365*day)
	return errors.Join(bad...)
}

// Quota is the quotas of directory.Limits as the file writes them.
type Quota struct {
	Default  mail.Size `key:"default" default:"20MiB" reload:"yes" doc:"Quota of an account."`
	Filtered mail.Size `key:"filtered" default:"1GiB" reload:"yes" doc:"Quota of an account with the spam filter on."`
}

// Limits are the values as the directory takes them; login.session_life, which
// stands beside them there, is not among them.
func (q Quota) Limits() directory.Limits {
	return directory.Limits{Quota: int64(q.Default), QuotaFiltered: int64(q.Filtered)}
}

// Check implements the check of a section.
func (q Quota) Check() error {
	var bad checks
	bad.sizeBetween("default", q.Default, 1, 1<<50)
	bad.sizeBetween("filtered", q.Filtered, 1, 1<<50)
	return errors.Join(bad...)
}
