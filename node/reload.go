package node

import (
	"context"

	"bsmtpd/config"
	"bsmtpd/host"
	"bsmtpd/mail"
)

// Reload reads the configuration again: SIGHUP.
func (n *Node) Reload() {
	if n.watcher != nil {
		n.watcher.Reload()
	}
}

// watch takes over what changes in the configuration until ctx ends.
func (n *Node) watch(ctx context.Context) error {
	if n.watcher == nil {
		<-ctx.Done()
		return nil
	}
	return n.watcher.Watch(ctx, func(c *config.Config, changed, needRestart []string) { n.reload(ctx, c, changed, needRestart) })
}

func (n *Node) reload(ctx context.Context, c *config.Config, changed, needRestart []string) {
	if n.opts.Level != nil {
		setLevel(n.opts.Level, c.Node.Log.Level)
	}
	c = n.fitted(c)
	n.space.setConfig(c.Node.LowSpace)
	n.login.SetConfig(c.Login)
	n.bounce.SetConfig(c.Bounce)
	n.delivery.SetConfig(c.Delivery)
	if err := n.smtpd.SetConfig(c.SMTPD); err != nil {
		n.log.Error("settings of smtpd were not taken over", "error", err)
	}
	if err := n.api.SetConfig(c.API); err != nil {
		n.log.Error("settings of api were not taken over", "error", err)
	}
	if err := n.putSettings(ctx, c); err != nil {
		n.log.Error("settings of spool and quota were not taken over; they are tried again at the next change or start", "error", err)
	}
	n.log.Info("configuration taken over", "changed", changed, "need_restart", needRestart)
}

// putSettings proposes the settings that belong to the cluster, if they differ.
func (n *Node) putSettings(ctx context.Context, c *config.Config) error {
	for tries := 3; n.cluster.Settings() != settings(c); tries-- {
		err := n.cluster.PutSettings(ctx, settings(c))
		if err != nil && (tries == 0 || mail.KindOf(err) != mail.Unavailable || host.Sleep(ctx, n.opts.Config.Node.Raft.ApplyTimeout) != nil) {
			return err
		}
	}
	return nil
}
