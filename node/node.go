// Package node puts one server together and runs it until it is told to stop.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"bsmtpd/api"
	"bsmtpd/bounce"
	"bsmtpd/cluster"
	"bsmtpd/config"
	"bsmtpd/delivery"
	"bsmtpd/host"
	"bsmtpd/login"
	"bsmtpd/mail"
	"bsmtpd/metric"
	"bsmtpd/smtpd"
	"bsmtpd/spool"

	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Options say what a node is made of.
type Options struct {
	Config  *config.Config
	Source  config.Options // where Config came from, to read it again; FS nil: it is not watched
	Host    host.Host
	Log     *slog.Logger
	Level   *slog.LevelVar // changed by a reload; nil: not
	Version string
	Init    bool             // an empty data directory is meant
	Still   bool             // for simulated time: see kv.Options
	Wall    func() time.Time // see cluster.Options
}

// Node is one server: everything between the network and the disk.
type Node struct {
	opts     Options
	log      *slog.Logger
	reg      *metric.Registry
	hostname string

	cluster  *cluster.Node
	space    *space
	figures  *figures
	smtpd    *smtpd.Server
	login    *login.Server
	delivery *delivery.Pusher
	house    *delivery.Housekeeper
	bounce   *bounce.Server
	api      *api.Server
	watcher  *config.Watcher

	ready  atomic.Bool
	failed chan error // 1 deep: the disk cannot be trusted
}

// New opens the data directory, builds every part and binds every port. It
// serves nobody before Run.
func New(o Options) (*Node, error) {
	n := &Node{opts: o, log: o.Log, reg: metric.New(), hostname: o.Config.Node.Hostname, failed: make(chan error, 1)}
	if n.hostname == "" && o.Host.Name != nil {
		n.hostname = o.Host.Name()
	}
	n.reg.Register(collectors.NewGoCollector())
	n.reg.Register(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{Namespace: metric.Namespace}))
	if err := n.openCluster(); err != nil {
		return nil, err
	}
	if err := n.build(); err != nil {
		return nil, errors.Join(err, n.cluster.Close())
	}
	if err := n.listen(); err != nil {
		return nil, errors.Join(err, n.close(), n.cluster.Close())
	}
	return n, nil
}

func (n *Node) openCluster() error {
	c := n.opts.Config
	_, files, _, err := fit(*c, n.openFiles())
	if err != nil {
		return err
	}
	n.cluster, err = cluster.Open(n.opts.Host, cluster.Options{
		Dir: c.Node.DataDir, Node: c.Node.Name, Init: n.opts.Init, Settings: settings(c), Provider: c.Node.ProviderDomains,
		ApplyTimeout: c.Node.Raft.ApplyTimeout, Heartbeat: c.Node.Raft.Heartbeat, SnapshotBytes: int64(c.Node.Raft.SnapshotBytes),
		CacheBytes: int64(c.Node.Store.CacheSize), MemTableBytes: uint64(c.Node.Store.MemtableSize), Still: n.opts.Still, Wall: n.opts.Wall, OpenFiles: files,
		Log: n.log, Registry: n.reg, Effects: n.effects,
		Fatal: func(err error) { n.failed <- err },
	})
	return err
}

func settings(c *config.Config) cluster.Settings {
	limits := c.Quota.Limits()
	limits.SessionLife = c.Login.SessionLife
	return cluster.Settings{Spool: c.Spool.Settings(), Limits: limits}
}

// build makes the parts; each gets what it needs and no more.
func (n *Node) build() error {
	c, h, cl := n.fitted(n.opts.Config), n.opts.Host, n.cluster
	mailLog := metric.NewMailLog(n.log)
	n.space = newSpace(h.FS, c.Node.DataDir, c.Node.LowSpace, n.log, n.reg, n.spaceChanged)
	n.space.short, n.space.relieve = cl.Short, cl.CutLog
	n.figures = newFigures(cl.Spool, cl.Now, n.log, n.reg)
	var err error
	n.smtpd, err = smtpd.New(c.SMTPD, smtpd.Deps{
		Host: h, Hostname: n.hostname, TempDir: h.FS.PathJoin(c.Node.DataDir, "tmp"), Queue: cl, Directory: newKnownDomains(cl.Directory(), cl.DirectoryVersion), Usage: cl.Quota(),
		Limits: replicated{cl}.limits, Admit: n.admit, Log: n.log, MailLog: mailLog, Metrics: n.reg,
	})
	if err != nil {
		return err
	}
	n.login = login.New(c.Login, h, c.Node.DataDir, cl, n.log, n.reg)
	n.bounce = bounce.New(c.Bounce, bounce.Deps{
		Hostname: n.hostname, Host: h, Spool: cl.Spool(), Queue: cl, Resolver: places{cl}, Metrics: n.reg, Log: n.log, Mail: mailLog,
	})
	n.delivery = delivery.New(c.Delivery, delivery.Deps{
		Host: h, Self: delivery.Self{Node: c.Node.Name, Hostname: n.hostname, Listening: n.listens}, Spool: cl, Rows: cl.Spool(),
		Directory: cl.Directory(), Settings: replicated{cl}.spoolSettings, Now: cl.Now, Log: n.log, MailLog: mailLog, Metrics: n.reg,
	})
	n.house = n.delivery.NewHousekeeper(cl, cl.Spool())
	n.api = api.New(c.API, api.Deps{
		Node: replicated{cl}, Host: h, Log: n.log, MailLog: mailLog, Metrics: n.reg, DataDir: c.Node.DataDir, Name: c.Node.Name,
		Version: n.opts.Version, Hostname: n.hostname, Sources: n.delivery.Sources, NotReady: n.NotReady, Warnings: n.warnings,
		Leader: n.leader,
	})
	if n.opts.Source.FS != nil {
		n.watcher = config.NewWatcher(n.opts.Source, n.opts.Config, n.log)
	}
	return nil
}

func (n *Node) listen() error {
	return errors.Join(n.smtpd.Listen(), n.login.Listen(), n.api.Listen())
}

// close gives up the ports of a node that never ran.
func (n *Node) close() error {
	return errors.Join(n.smtpd.Close(), n.login.Close(), n.api.Close())
}

// Run serves until ctx ends or the node must stop; an error says why it must.
// It closes the data directory before it returns.
func (n *Node) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go n.obey(ctx, cancel)
	n.space.look()
	err := n.cluster.WaitReady(ctx)
	if err == nil {
		n.ready.Store(true)
		n.log.Info("ready", "node", n.opts.Config.Node.Name, "version", n.opts.Version, "listens", n.Listens())
		err = runTiers(ctx, n.log, n.opts.Config.Node.StopTimeout,
			tier{{"smtpd", n.smtpd.Run}, {"login", n.login.Run}},
			tier{{"delivery", n.delivery.Run}, {"house", n.house.Run}, {"bounce", n.bounce.Run}, {"space", n.space.run}, {"figures", n.figures.run}, {"config", n.watch}},
			tier{{"api", n.api.Run}},
		)
		n.ready.Store(false)
		n.log.Info("stopped", "node", n.opts.Config.Node.Name)
	} else {
		err = errors.Join(err, n.close())
	}
	if cause := context.Cause(ctx); err == nil && cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	return errors.Join(err, n.cluster.Close())
}

// obey ends ctx when the disk has failed.
func (n *Node) obey(ctx context.Context, cancel context.CancelCauseFunc) {
	select {
	case err := <-n.failed:
		cancel(fmt.Errorf("the node had to stop: %w", err))
	case <-ctx.Done():
	}
}

// effects passes on what the rows ask for. It is called while the log waits, so
// nothing here may block.
func (n *Node) effects(effects []spool.Effect) {
	if !n.ready.Load() {
		return // the parts look at the rows when they begin
	}
	owed := false
	for _, e := range effects {
		switch e.Kind {
		case spool.EffectDue:
			n.delivery.Wake(e.Queue, e.Cause)
		case spool.EffectStop:
			n.delivery.Stop(e.Queue)
		case spool.EffectOwed:
			owed = true
		}
	}
	if owed {
		n.bounce.Wake()
	}
}

func (n *Node) spaceChanged(r room) { n.delivery.Pause(r == roomOut) }

// admit says whether mail may be taken in now.
func (n *Node) admit() error {
	if err := n.cluster.Failed(); err != nil {
		return mail.Fail(mail.Unavailable, "the mail store has failed")
	}
	return n.space.admit()
}

// NotReady gives the reasons why no traffic should come here; none: it may.
func (n *Node) NotReady() []string {
	var why []string
	if !n.ready.Load() {
		why = append(why, "starting or stopping")
	}
	if err := n.cluster.Failed(); err != nil {
		why = append(why, "the disk failed: "+err.Error())
	}
	if err := n.space.admit(); mail.KindOf(err) == mail.Unavailable {
		why = append(why, err.Error())
	}
	return why
}

// warnings are what an operator must look at although the node serves.
func (n *Node) warnings() []string {
	if damaged := n.cluster.Damaged(); damaged != "" {
		return []string{damaged}
	}
	return nil
}

func (n *Node) leader() string {
	if n.cluster.IsLeader() {
		return n.opts.Config.Node.Name
	}
	return ""
}

// Listens says what is bound where, by setting.
func (n *Node) Listens() map[string][]string {
	out := map[string][]string{}
	add := func(key string, addrs []net.Addr) {
		for _, a := range addrs {
			out[key] = append(out[key], a.String())
		}
	}
	add("smtpd.listen", n.smtpd.Addrs())
	add("login.radius.listen", n.login.Addrs())
	add("api.address", n.api.Addrs())
	return out
}

// listens are the SMTP addresses of this node, so that a push cannot come back.
func (n *Node) listens() []netip.AddrPort {
	var out []netip.AddrPort
	for _, a := range n.smtpd.Addrs() {
		if ap, err := netip.ParseAddrPort(a.String()); err == nil {
			out = append(out, ap)
		}
	}
	return out
}

// Cluster is the replicated machine, for tests and simulations.
func (n *Node) Cluster() *cluster.Node { return n.cluster }
