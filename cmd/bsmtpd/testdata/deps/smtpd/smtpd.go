package smtpd

import (
	crand "crypto/rand"
	"crypto/tls"
	"math/rand"
	"net"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"time"

	"bsmtpd/cluster" // want smtpd may not import cluster
	"bsmtpd/spool"
)

var (
	mu     sync.Mutex                   // want holds state
	once   = new(sync.Once)             // want holds state
	queue  = make(chan int)             // want holds state
	guard  struct{ inner sync.RWMutex } // want holds state
	names  = map[string]int{"a": 1}
	count  int
	filled []string
	table  [4]int
	fixed  = map[string]int{"b": 2}
)

func init() {
	filled = append(filled, cluster.Name)
	go func() { queue <- 1 }() // want started before main
}

func Listen() (net.Listener, error) {
	if _, err := net.Dial("tcp", "192.0.2.1:25"); err != nil { // want only host may use net.Dial
		return nil, err
	}
	var d net.Dialer // want only host may use net.Dialer
	_ = d
	dial := net.DialTimeout // want only host may use net.DialTimeout
	_ = dial
	_, _ = tls.LoadX509KeyPair("a", "b") // want only host may use crypto/tls.LoadX509KeyPair
	return net.Listen("tcp", ":25")      // want only host may use net.Listen
}

func Files(r *rand.Rand) {
	_, _ = os.ReadFile("x")                   // want only host may use os.ReadFile
	_ = exec.Command("true")                  // want only host may use os/exec.Command
	_, _ = crand.Read(nil)                    // want only host may use crypto/rand.Read
	_ = rand.Intn(2) + r.Intn(2)              // want only host may use math/rand.Intn
	_, _ = http.Get("http://192.0.2.1/")      // want only host may use net/http.Get
	_ = (&http.Server{}).ListenAndServe()     // want only host may use net/http.ListenAndServe
	_ = os.IsNotExist(os.ErrNotExist)         // words only
	_ = time.Now().Sub(time.Time{}).Seconds() // doers use plain time
}

func State() *int {
	mu.Lock()
	once.Do(func() {})
	guard.inner.Lock()
	names["c"] = 3     // want package variable names is changed
	count++            // want package variable count is changed
	table[1] = 2       // want package variable table is changed
	delete(names, "a") // want package variable names is changed
	local := fixed["b"] + len(spool.Order(nil))
	local++
	return &count // want package variable count is changed
}
