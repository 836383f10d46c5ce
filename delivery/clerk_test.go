package delivery

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"bsmtpd/mail"
	"bsmtpd/metric"
	"bsmtpd/spool"
)

// reports is a spool that notes how large its reports are.
type reports struct {
	Spool
	bytes []int
	total int
}

func (r *reports) Settle(_ context.Context, s spool.Settle) (spool.Settled, error) {
	n := 0
	for i := range s.Results {
		n += resultBytes(&s.Results[i])
	}
	r.bytes = append(r.bytes, n)
	r.total += len(s.Results)
	return spool.Settled{}, nil
}

// A hundred messages to a thousand recipients each, with a long refusal for
// every one of them: a command of a hundred megabytes could never be settled, and
// the mail would be sent again for ever.
func TestReportsOfManyRecipientsStaySmallEnoughToBeCommitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conf := Config{ClaimLife: time.Hour, ReportEvery: 50 * time.Millisecond}
		sp := &reports{}
		k := &clerk{spool: sp, ctx: t.Context(), cfg: &conf, metrics: newMetrics(metric.New()), in: make(chan spool.Result, reportBacklog),
			done: make(chan struct{}), abort: func(err error) { t.Error(err) }}
		go k.run()
		words := strings.Repeat("x", spool.MaxWordsBytes)
		largest := 0
		for id := range 100 {
			r := spool.Result{ID: mail.ID(id + 1)}
			for i := range spool.MaxRecipients {
				r.To = append(r.To, spool.RecipientResult{Address: mail.Address(fmt.Sprintf("user%d@customer.example", i)),
					Fate: spool.Failed, Reply: mail.Reply{Code: 550, Text: words}})
			}
			largest = max(largest, resultBytes(&r))
			k.report(r)
		}
		close(k.in)
		<-k.done
		for _, n := range sp.bytes {
			if n > largest+reportBytes {
				t.Errorf("a report of %d bytes; one message has %d at most", n, largest)
			}
		}
		if sp.total != 100 {
			t.Errorf("%d results were reported, want 100", sp.total)
		}
	})
}

func TestResultsThatWaitForASlowReportGoTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sizes []int
		k := &clerk{spool: slowSpool{sizes: &sizes}, ctx: t.Context(), cfg: &Config{ClaimLife: time.Hour, ReportEvery: 50 * time.Millisecond},
			metrics: newMetrics(metric.New()), in: make(chan spool.Result, reportBacklog), done: make(chan struct{})}
		go k.run()
		for i := range 1000 {
			k.report(spool.Result{ID: mail.ID(i)})
		}
		close(k.in)
		<-k.done
		if want := "[250 250 250 250]"; fmt.Sprint(sizes) != want {
			t.Errorf("reports of %v, want %s", sizes, want)
		}
	})
}

// slowSpool takes a second for each report.
type slowSpool struct {
	Spool
	sizes *[]int
}

func (s slowSpool) Settle(_ context.Context, c spool.Settle) (spool.Settled, error) {
	*s.sizes = append(*s.sizes, len(c.Results))
	time.Sleep(time.Second)
	return spool.Settled{}, nil
}
