package main_test

// This file holds the structure of the program: which folder may import which,
// and what code may do in which folder. DO NOT CHANGE THE TABLES TO FIX A BUILD:
// an import that is not allowed is a design question. deps_check_test.go holds
// the machinery.

import (
	"testing"
)

// folderRule says what a folder's code, tests excepted, may import.
type folderRule struct {
	folder  string
	project string // folders of this module
	modules string // other modules, or packages of them
}

// Groups of folders, for the table.
const (
	leaves   = "mail kv host metric filter "
	deciders = "spool directory quota relay history filter/memory "
	doers    = "smtpd login delivery bounce mailbox mirror dnswatch api "

	// A doer reads what the deciders know through their Reader types. It
	// changes nothing itself: it asks an interface that node supplies.
	forDoers = "mail host metric " + deciders

	// Modules that any running part may need.
	common = "github.com/prometheus golang.org/x github.com/cockroachdb/pebble/v2/vfs"
)

// folderRules says what each folder may import: the mail's way is the folder list.
// A folder that is not here fails the test. Some rows are for folders that are not
// there yet (filter, relay, history, mailbox, mirror, dnswatch, portal).
var folderRules = []folderRule{
	{"mail", "", ""},
	{"kv", "", "github.com/cockroachdb/pebble github.com/fxamacker/cbor"},
	{"host", "", "github.com/cockroachdb/pebble/v2/vfs github.com/fsnotify/fsnotify golang.org/x/sys"},
	{"metric", "mail", "github.com/prometheus"},
	{"filter", "mail host metric", "github.com/emersion blitiri.com.ar/go/spf"},

	{"quota", "mail kv", ""},
	{"directory", "mail kv quota", ""},
	{"spool", "mail kv", ""},
	{"relay", "mail kv directory", ""},
	{"history", "mail kv", ""},
	{"filter/memory", "mail kv", ""},

	{"cluster", "mail kv host metric " + deciders, "github.com/hashicorp github.com/fxamacker/cbor github.com/cockroachdb/pebble " + common},

	{"smtpd", forDoers + " filter smtpd/strict", "github.com/emersion github.com/pires/go-proxyproto " + common},
	{"smtpd/strict", "mail", ""}, // what may pass between the network and the protocol
	{"login", forDoers, "layeh.com/radius " + common},
	{"delivery", forDoers, common},
	{"bounce", forDoers, common},
	{"mailbox", forDoers, "github.com/emersion " + common},
	{"mirror", forDoers, "filippo.io/age " + common},
	{"dnswatch", forDoers, "github.com/miekg/dns " + common},
	{"api", forDoers + " api/wire", "github.com/danielgtaylor/huma " + common},
	{"api/wire", "mail", ""}, // the words of the API, for both sides of it
	{"api/client", "mail host api/wire", "golang.org/x"},
	{"portal", "api", ""},

	{"config", "mail host cluster " + deciders + doers + "portal filter", "github.com/spf13/viper go.yaml.in/yaml github.com/cockroachdb/pebble/v2/vfs"},
	{"node", "config cluster portal " + leaves + deciders + doers, "github.com/cockroachdb/pebble " + common},
	// The demo plays the customer's server and the access server as well.
	{"cmd/bsmtpd", "node config api/client api/wire mail host directory",
		"github.com/spf13 golang.org/x github.com/cockroachdb/pebble/v2/vfs github.com/emersion/go-smtp layeh.com/radius"},

	{"simtest", "node config cluster portal " + leaves + deciders + doers + "api/wire api/client", "github.com golang.org pgregory.net"},
	{"simtest/machine", "delivery cluster kv mail " + deciders, "github.com/cockroachdb"}, // its lower level
	{"scripts/summary", "", ""},
	{"test/*", "", ""}, // tests with real peers, and nothing else
	{"bench", "api/client api/wire host mail", "layeh.com/radius golang.org/x"}, // the finished program, from outside
}

// pure are the folders whose code must give the same result everywhere and
// always: it runs on every replica, and the results must be equal to the byte.
const pure = deciders

// pureBans is what pure code must not use, beside outsideBans: the time is an
// argument, nothing runs beside it, and nothing is known but the rows.
var pureBans = map[string]string{
	"time":        "Now Since Until After AfterFunc Tick NewTimer NewTicker Sleep LoadLocation Local",
	"sync":        "*",
	"sync/atomic": "*",
	"context":     "*",
	"log":         "*",
	"log/slog":    "*",
	"os":          "*",
	"net":         "*",
	"net/http":    "*",
	"runtime":     "*",
}

// outsideBans is what reaches out of the process. Only host may use it: what
// does not come through a host.Host cannot be simulated.
var outsideBans = map[string]string{
	"net": "Listen ListenTCP ListenUDP ListenUnix ListenUnixgram ListenIP ListenMulticastUDP ListenPacket ListenConfig " +
		"Dial DialTimeout DialTCP DialUDP DialUnix DialIP Dialer FileConn FileListener FilePacketConn " +
		"LookupAddr LookupCNAME LookupHost LookupIP LookupMX LookupNS LookupPort LookupSRV LookupTXT Resolver DefaultResolver " +
		"ResolveTCPAddr ResolveUDPAddr ResolveIPAddr Interfaces InterfaceAddrs InterfaceByIndex InterfaceByName",
	"net/http":   "Get Head Post PostForm ListenAndServe ListenAndServeTLS DefaultClient DefaultTransport DefaultServeMux Handle HandleFunc Dir FileServer ServeFile",
	"net/smtp":   "*",
	"net/rpc":    "*",
	"crypto/tls": "Dial DialWithDialer Dialer Listen LoadX509KeyPair",
	"os": "Open OpenFile OpenRoot OpenInRoot Create CreateTemp ReadFile WriteFile ReadDir Mkdir MkdirAll MkdirTemp Remove RemoveAll Rename " +
		"Stat Lstat Chmod Chown Lchown Chtimes Link Symlink Readlink Truncate DirFS CopyFS Pipe StartProcess FindProcess Chdir Getwd TempDir " +
		"Hostname Environ Getenv LookupEnv ExpandEnv Setenv Unsetenv Stdin Stdout Stderr Exit Args Executable UserHomeDir UserConfigDir UserCacheDir",
	"os/exec":                              "*",
	"os/signal":                            "*",
	"os/user":                              "*",
	"io/ioutil":                            "*",
	"path/filepath":                        "Walk WalkDir Glob EvalSymlinks Abs",
	"log":                                  "Print Printf Println Fatal Fatalf Fatalln Panic Panicf Panicln Default",
	"log/slog":                             "Default SetDefault Debug Info Warn Error Log DebugContext InfoContext WarnContext ErrorContext",
	"math/rand":                            "Int Int31 Int31n Int63 Int63n Intn Float32 Float64 ExpFloat64 NormFloat64 Perm Read Seed Shuffle Uint32 Uint64",
	"math/rand/v2":                         "Int Int32 Int32N Int64 Int64N IntN N Float32 Float64 ExpFloat64 NormFloat64 Perm Shuffle Uint Uint32 Uint32N Uint64 Uint64N UintN",
	"crypto/rand":                          "*",
	"golang.org/x/sys/unix":                "*",
	"github.com/fsnotify/fsnotify":         "*",
	"github.com/cockroachdb/pebble/v2/vfs": "Default",
	"github.com/emersion/go-smtp":          "Dial DialTLS DialStartTLS SendMail SendMailTLS ListenAndServe ListenAndServeTLS",
	"github.com/hashicorp/raft":            "NewTCPTransport NewTCPTransportWithLogger NewTCPTransportWithConfig NewFileSnapshotStore",
	"layeh.com/radius":                     "Exchange DefaultClient ListenAndServe",
}

// exceptions to the bans. uses are words "package.Name" or "package.*".
var exceptions = []struct{ folder, uses, reason string }{
	{"host", "*", "host is the outside"},
	{"api", "golang.org/x/sys/unix.*", "asks the kernel who is at the other end of the admin socket"},
	{"cmd/bsmtpd", "os.Args os.Environ os.Stdin os.Stdout os.Stderr os.Exit os.Hostname os/signal.*", "the process itself is the business of main"},
	{"cmd/bsmtpd", "golang.org/x/sys/unix.*", "asks whether the output is a terminal"},
	{"cmd/bsmtpd", "os.MkdirTemp os.RemoveAll net.Listen layeh.com/radius.Exchange", "the demo plays the world around the server"},
	{"scripts/summary", "*", "a tool of the build"},
	{"bench", "*", "plays the world around the finished program, and starts it"},
}

// packageState are package variables that may change or be locked.
var packageState = []struct{ folder, name, reason string }{}

// TestTheFoldersKeepTheirPlaces checks the whole module.
func TestTheFoldersKeepTheirPlaces(t *testing.T) {
	if testing.Short() {
		t.Skip("loads the types of the whole module")
	}
	c := load(t, "../..")
	if len(c.packages) < 10 {
		t.Fatalf("found %d packages; the module is elsewhere", len(c.packages))
	}
	for _, p := range c.check() {
		t.Error(p)
	}
}

// TestABadModuleIsCaught holds the check to its word: testdata/deps is a module
// in which every line that must be reported says so in a comment "// want TEXT".
func TestABadModuleIsCaught(t *testing.T) {
	c := load(t, "testdata/deps")
	compareWithWants(t, c, c.check())
}
