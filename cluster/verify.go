package cluster

import (
	"errors"
	"fmt"
	"path"
	"runtime"
	"strings"
	"syscall"
	"time"

	"bsmtpd/directory"
	"bsmtpd/host"
	"bsmtpd/kv"
	"bsmtpd/mail"
	"bsmtpd/quota"
	"bsmtpd/spool"
)

// Check is one question to a data directory, and the answer.
type Check struct {
	Name    string   `json:"check"`
	Sound   bool     `json:"sound"`
	Warning bool     `json:"warning,omitempty"` // it is sound, and somebody should look at it
	Refuses bool     `json:"refuses_start"`     // a server refuses to start because of it
	Found   string   `json:"found"`
	Do      string   `json:"do,omitempty"`
	Faults  []string `json:"faults,omitempty"` // the first maxFaults of them
	Count   int64    `json:"fault_count,omitempty"`
}

// Report is what Verify found.
type Report struct {
	Dir     string  `json:"directory"`
	Cluster string  `json:"cluster,omitempty"`
	Node    string  `json:"node,omitempty"`
	Checks  []Check `json:"checks"`
}

// maxFaults are listed one by one; the rest is counted.
const maxFaults = 20

// Sound reports whether nothing is wrong.
func (r *Report) Sound() bool {
	for _, c := range r.Checks {
		if !c.Sound {
			return false
		}
	}
	return true
}

// Refuses reports whether a server would refuse to start.
func (r *Report) Refuses() bool {
	for _, c := range r.Checks {
		if c.Refuses {
			return true
		}
	}
	return false
}

const (
	doRestore = "do not start; restore the whole data directory from one backup"
	doReplace = "the server starts, but mail cannot be delivered: restore from a backup, or replace the disk and remove what is lost"
	doNothing = "the server starts; a sweep, time or an operator's next change puts it right, or it takes room and no more"
	doLook    = "safe to start: the rest was counted without them, and nothing removes them. A message or bounce among them will not go out: compare with a backup, or tell its sender"
)

// Verify looks at every byte of a data directory that no server uses, and changes
// nothing. node is the name that a server would have. progress may be nil. The
// error says why it could not look.
func Verify(h host.Host, dir, node string, progress func(what string, done int64)) (*Report, error) {
	if progress == nil {
		progress = func(string, int64) {}
	}
	v := &verification{host: h, report: &Report{Dir: dir}, progress: progress}
	id, fresh, err := lookIdentity(h, dir, node, false)
	switch {
	case fresh:
		return nil, mail.Fail(mail.NotFound, fmt.Sprintf("there is no data directory %s: name one with --data", dir))
	case err != nil:
		v.bad("identity", true, err.Error(), "mount its disk, name the right directory, or restore it from a backup")
		return v.report, nil
	}
	v.report.Cluster, v.report.Node = id.Cluster, id.Node
	v.good("identity", fmt.Sprintf("node %s of cluster %s", id.Node, id.Cluster))
	db, err := openState(h.FS, dir, unheard{}, kv.Options{FS: h.FS, ReadOnly: true, MustExist: true})
	if errors.Is(err, syscall.EAGAIN) {
		return nil, mail.Fail(mail.Conflict, fmt.Sprintf("a server is running on %s: stop it first", dir))
	}
	if db != nil {
		defer db.Close()
	}
	v.files(id, db, err)
	if db != nil {
		v.rows(db)
	}
	return v.report, nil
}

type verification struct {
	host     host.Host
	report   *Report
	progress func(string, int64)
}

func (v *verification) add(c Check) { v.report.Checks = append(v.report.Checks, c) }

func (v *verification) good(name, found string) { v.add(Check{Name: name, Sound: true, Found: found}) }

func (v *verification) bad(name string, refuses bool, found, do string) {
	v.add(Check{Name: name, Refuses: refuses, Found: found, Do: do})
}

// files asks what a start asks, in the same words.
func (v *verification) files(id Identity, db *kv.Store, opened error) {
	dir := v.report.Dir
	var machine *Machine
	switch {
	case opened != nil:
		v.bad("state database", true, opened.Error(), doRestore)
	default:
		var err error
		if machine, err = LoadMachine(db); err != nil {
			v.bad("state database", true, err.Error(), doRestore)
		} else {
			v.good("state database", fmt.Sprintf("all files are there; rows up to entry %d", machine.Applied()))
		}
	}
	v.progress("log", 0)
	snaps := &snapshotStore{fs: v.host.FS, dir: path.Join(dir, snapshotDir)}
	metas, err := snaps.List()
	if err != nil {
		v.bad("snapshots", true, err.Error(), doRestore)
	}
	log, err := checkLog(v.host.FS, path.Join(dir, logDir))
	if err != nil {
		v.bad("log", true, err.Error(), doRestore)
		return
	}
	problems, harmless := log.problems(covered(metas))
	switch {
	case len(problems) > 0:
		v.add(Check{Name: "log", Refuses: true, Found: "mail that was accepted would be missing", Do: doRestore, Faults: problems, Count: int64(len(problems))})
	case len(harmless) > 0:
		v.add(Check{Name: "log", Found: "parts are damaged that are not needed any more", Do: "safe to start; the disk is not sound", Faults: harmless, Count: int64(len(harmless))})
	default:
		found := fmt.Sprintf("entries %d to %d in %d segments", log.first(), log.last(), len(log.segments))
		if t := log.tail(); t != nil && t.rest > t.end {
			found += fmt.Sprintf("; %d bytes of a write that was never completed follow: nobody was told of them, a start clears them", t.rest-t.end)
		}
		v.good("log", found)
	}
	if log.mark != "" {
		v.bad("end of the log", false, log.mark, "safe to start, which makes it anew; if it was not removed by hand or by an upgrade, compare with a backup first")
	} else {
		v.good("end of the log", fmt.Sprintf("entry %d was synced last", log.synced))
	}
	if machine == nil {
		return
	}
	if err := continuity(dir, id.Ready, log.first(), log.last(), machine.Applied(), metas); err != nil {
		v.bad("log and rows", true, err.Error(), doRestore)
	} else {
		v.good("log and rows", fmt.Sprintf("they belong together; %d entries are to be applied", log.last()-machine.Applied()))
	}
}

// rows looks into all files of the state database and at all rows.
func (v *verification) rows(db *kv.Store) {
	v.progress("blocks", 0)
	if err := db.CheckFiles(); err != nil {
		v.bad("blocks", false, err.Error(), doReplace)
	} else {
		v.good("blocks", "every block of rows has its checksum")
	}
	c := Check{Name: "mail"}
	lost := false
	reader := spool.Reader{R: db}
	seen, err := reader.Verify(func(f spool.Fault) {
		lost = lost || f.Lost
		c.fault(f.Text)
	}, func(rows int64) { v.progress("rows", rows) })
	c.Found = fmt.Sprintf("%d messages in %d queues, %d bodies, %s", seen.Messages, seen.Queues, seen.Bodies, mail.Size(seen.Bytes))
	if err != nil {
		lost = true
		for text := range strings.SplitSeq(err.Error(), "\n") {
			c.fault(text)
		}
	}
	v.end(c, lost)
	v.aside(reader)
	v.directory(db)
	v.quota(db, reader)
}

func (c *Check) fault(text string) {
	if c.Count++; c.Count <= maxFaults {
		c.Faults = append(c.Faults, text)
	}
}

func (v *verification) end(c Check, lost bool) {
	c.Sound = c.Count == 0
	switch {
	case lost:
		c.Do = doReplace
	case !c.Sound:
		c.Do = doNothing
	}
	v.add(c)
}

// aside tells of rows that did not decode and that a server has set aside.
func (v *verification) aside(reader spool.Reader) {
	c := Check{Name: "rows set aside"}
	var err error
	for a := range reader.Aside("", &err) {
		c.fault(fmt.Sprintf("%s: %s", mail.Time(a.At).Std().Format(time.RFC3339), a.Why))
	}
	c.Found = "none"
	if c.Count > 0 {
		c.Found = fmt.Sprintf("%d that did not decode", c.Count)
	}
	c.Sound = err == nil
	if err != nil {
		c.fault(err.Error())
		c.Do = doReplace
	} else if c.Count > 0 {
		c.Warning, c.Do = true, doLook
	}
	v.add(c)
}

func (v *verification) directory(db *kv.Store) {
	c := Check{Name: "accounts and domains"}
	r := directory.Reader{R: db}
	var accounts, domains int64
	var aerr, derr error
	for range r.Accounts("", &aerr) {
		accounts++
	}
	for range r.Domains("", &derr) {
		domains++
	}
	for _, err := range []error{aerr, derr} {
		if err != nil {
			c.fault(err.Error())
		}
	}
	c.Found = fmt.Sprintf("%d accounts, %d domains", accounts, domains)
	v.end(c, c.Count > 0)
}

// quota compares what each account was charged with what its queues hold; those
// were compared with their messages before.
func (v *verification) quota(db *kv.Store, reader spool.Reader) {
	c := Check{Name: "quota"}
	var err error
	accounts := int64(0)
	for login, u := range (quota.Reader{R: db}).All(&err) {
		accounts++
		if accounts%1000 == 0 {
			v.progress("quota", accounts)
		}
		held, herr := holds(reader, login)
		if herr == nil && held != u {
			c.fault(fmt.Sprintf("account %s is charged %d messages of %d bytes; its queues hold %d of %d", login, u.Messages, u.Bytes, held.Messages, held.Bytes))
		}
	}
	if err != nil {
		c.fault(err.Error())
	}
	var qerr error
	for q := range reader.Queues("", &qerr) {
		if login := q.Name.Login(); login != "" && q.Messages > 0 {
			if u, err := quota.Of(db, login); err == nil && u == (quota.Usage{}) {
				c.fault(fmt.Sprintf("account %s is charged nothing; queue %s holds %d messages", login, q.Name, q.Messages))
			}
		}
	}
	c.Found = fmt.Sprintf("%d accounts hold mail", accounts)
	v.end(c, false)
	if last := &v.report.Checks[len(v.report.Checks)-1]; !last.Sound {
		last.Do = "the server starts; the account may be refused mail too early or too late until its queue is empty"
	}
}

func holds(r spool.Reader, login mail.Login) (quota.Usage, error) {
	a, _, aerr := r.Queue(spool.AccountQueue(login))
	m, _, merr := r.Queue(spool.MailboxQueue(login))
	return quota.Usage{Bytes: a.Bytes + m.Bytes, Messages: a.Messages + m.Messages}, errors.Join(aerr, merr)
}

// unheard is a log of pebble's that nobody reads.
type unheard struct{}

func (unheard) Infof(string, ...any)  {}
func (unheard) Errorf(string, ...any) {}
func (unheard) Fatalf(string, ...any) { runtime.Goexit() }
