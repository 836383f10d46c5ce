package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/viper"
	"go.yaml.in/yaml/v3"

	"bsmtpd/host"
)

// Options say where the settings come from. Later ones win: the defaults, the
// file, the environment, the flags.
type Options struct {
	FS      host.FS           // reads File and secret files
	File    string            // one YAML file; empty: none
	Environ []string          // "NAME=value", as os.Environ gives it
	Flags   map[string]string // by path: "smtpd.max_message" → "20MB"
}

// maxFile bounds the configuration file in bytes.
const maxFile = 1 << 20

// otherEnv are variables with our prefix that are not keys: the commands read
// them, tests set them, and Kubernetes makes them for a service named bsmtpd.
var otherEnv = regexp.MustCompile(`^BSMTPD_(CONFIG|DATA|SERVER|TOKEN|TEST_.*|SERVICE_.*|PORT|PORT_.*)$`)

// Default is the configuration without file, environment and flags.
func Default() *Config {
	c := new(Config)
	configSchema.setDefaults(reflect.ValueOf(c).Elem())
	return c
}

// Load reads the settings. A configuration that cannot be used is an error of
// type Problems, which names all that is wrong with it; a file that cannot be
// read is that error.
func Load(o Options) (*Config, error) {
	c := new(Config)
	if err := load(o, configSchema, c); err != nil {
		return nil, err
	}
	return c, nil
}

// setting is one value from one place. It is what viper stores and lets win or
// lose; a viper that held plain values could not tell where they came from.
type setting struct {
	value reflect.Value
	where string // for errors
}

// loading is the state of one load.
type loading struct {
	o        Options
	schema   *schema
	v        *viper.Viper
	wheres   map[string]string // of every section and element that the file names
	problems Problems
}

func load(o Options, s *schema, dst any) error {
	l := &loading{o: o, schema: s, v: viper.New(), wheres: map[string]string{}}
	root := reflect.ValueOf(dst).Elem()
	s.setDefaults(root)
	if o.File != "" {
		if err := l.file(); err != nil {
			return err
		}
	}
	l.environment()
	l.flags()
	for _, sec := range s.sections {
		for _, k := range sec.keys {
			if from, ok := l.v.Get(k.path).(*setting); ok {
				root.FieldByIndex(k.index).Set(from.value)
				l.wheres[k.path] = from.where
			}
		}
	}
	l.secrets(root)
	l.check(root)
	if len(l.problems) > 0 {
		return l.problems
	}
	return nil
}

func (s *schema) setDefaults(root reflect.Value) {
	for _, sec := range s.sections {
		for _, k := range sec.keys {
			setLoose(root.FieldByIndex(k.index), defaultText(k), k.element, func(_ *yaml.Node, path, text string) {
				panic(fmt.Sprintf("config: default of %s%s: %s", k.path, path, text))
			})
		}
	}
}

// defaultText is the default tag, or the zero value where there is none.
func defaultText(k *key) string {
	if k.std == "" && k.typ.Kind() != reflect.Slice && k.typ.Kind() != reflect.String && (!isText(k.typ) || k.typ == sizeType) {
		return format(reflect.Zero(k.typ))
	}
	return k.std
}

func (l *loading) add(where, path, text string) {
	l.problems = append(l.problems, Problem{Where: where, Key: path, Text: text})
}

// file reads the file into viper's layer of the file. The positions of keys are
// known to the YAML parser only, so the tree is walked here.
func (l *loading) file() error {
	data, err := host.ReadFile(l.o.FS, l.o.File, maxFile)
	if err != nil {
		var big *host.LimitError
		if errors.As(err, &big) {
			return fmt.Errorf("configuration file %s is larger than %d bytes; is it the right file?", l.o.File, big.Limit)
		}
		return fmt.Errorf("read the configuration file %s: %w", l.o.File, err)
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil // empty, or comments only
	case err != nil:
		l.problems = append(l.problems, l.syntax(err))
		return nil
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		l.add(l.o.File, "", "holds more than one YAML document; remove what follows the line \"---\"")
		return nil
	}
	tree := map[string]any{}
	bad := func(n *yaml.Node, path, text string) { l.add(l.line(n), path, text) }
	l.schema.walk(doc.Content[0], func(k *key, at, n *yaml.Node) {
		l.note(k, n)
		put(tree, k.path, l.read(k, l.line(at), func(v reflect.Value, bad report) { setNode(v, n, k.element, bad) }, bad))
	}, bad)
	return l.v.MergeConfigMap(tree)
}

// read makes the setting of a key, or nil and problems.
func (l *loading) read(k *key, where string, set func(reflect.Value, report), bad report) *setting {
	value, ok := reflect.New(k.typ).Elem(), true
	set(value, func(n *yaml.Node, path, text string) {
		bad(n, k.path+path, text)
		ok = false
	})
	if !ok {
		return nil
	}
	return &setting{value, where}
}

// note remembers where the parts of a list stand, for the errors of Check.
func (l *loading) note(k *key, n *yaml.Node) {
	n = resolve(n)
	if n.Kind != yaml.SequenceNode {
		return
	}
	for i, item := range n.Content {
		path := fmt.Sprintf("%s[%d]", k.path, i)
		l.wheres[path] = l.line(item)
		if k.element == nil {
			continue
		}
		k.element.walk(item, func(sub *key, at, _ *yaml.Node) { l.wheres[path+"."+sub.path] = l.line(at) },
			func(*yaml.Node, string, string) {})
	}
}

// put stores a setting at a path of nested maps, as viper wants them.
func put(tree map[string]any, path string, s *setting) {
	if s == nil {
		return
	}
	parts := strings.Split(path, ".")
	for _, part := range parts[:len(parts)-1] {
		sub, _ := tree[part].(map[string]any)
		if sub == nil {
			sub = map[string]any{}
			tree[part] = sub
		}
		tree = sub
	}
	tree[parts[len(parts)-1]] = s
}

// walk goes through a mapping by the schema and reports what does not belong.
// leaf gets the nodes of the key's name and of its value.
func (s *schema) walk(n *yaml.Node, leaf func(k *key, at, value *yaml.Node), bad report) {
	s.walkSection(s.sections[0], n, leaf, bad)
}

func (s *schema) walkSection(sec *section, n *yaml.Node, leaf func(k *key, at, value *yaml.Node), bad report) {
	n = resolve(n)
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return // a section whose keys are all commented out
	}
	if n.Kind != yaml.MappingNode {
		bad(n, sec.path, fmt.Sprintf("%s stands where a section belongs; keys allowed here: %s", show(n), strings.Join(sec.names, ", ")))
		return
	}
	seen := map[string]bool{}
	for i := 0; i < len(n.Content); i += 2 {
		at, value := n.Content[i], n.Content[i+1]
		path := strings.TrimPrefix(sec.path+"."+at.Value, ".")
		switch {
		case seen[at.Value]:
			bad(at, path, "is there twice; remove one")
		case s.keys[path] != nil && slices.Contains(sec.names, at.Value):
			leaf(s.keys[path], at, value)
		case s.known[path] != nil && slices.Contains(sec.names, at.Value):
			s.walkSection(s.known[path], value, leaf, bad)
		default:
			bad(at, path, s.stranger(sec, at.Value))
		}
		seen[at.Value] = true
	}
}

// stranger is the text for a key that is not known in a section.
func (s *schema) stranger(sec *section, name string) string {
	if nearest(name, sec.names) == "" {
		for _, other := range s.sections {
			if other != sec && slices.Contains(other.names, name) {
				return fmt.Sprintf("unknown key; did you mean %q?", strings.TrimPrefix(other.path+"."+name, "."))
			}
		}
	}
	return unknown(name, sec.names)
}

func (l *loading) line(n *yaml.Node) string {
	if n == nil || n.Line == 0 {
		return l.o.File
	}
	return fmt.Sprintf("%s:%d", l.o.File, n.Line)
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)

// syntax turns the YAML parser's error into ours.
func (l *loading) syntax(err error) Problem {
	p := Problem{Where: l.o.File, Text: err.Error()}
	if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
		p.Text = "is not YAML: " + m[2]
		if strings.Contains(m[2], "cannot start any token") {
			p.Text += "; indent with spaces, not tabs, and quote texts that begin with @, ` or %"
		}
		if m[1] != "" {
			p.Where += ":" + m[1]
		}
	}
	return p
}

// environment puts the variables into a layer above the file.
func (l *loading) environment() {
	tree := map[string]any{}
	var names []string
	for _, k := range l.schema.keys {
		names = append(names, strings.ToLower(k.env))
	}
	slices.Sort(names)
	env := slices.Clone(l.o.Environ)
	slices.Sort(env)
	for _, pair := range env {
		name, text, _ := strings.Cut(pair, "=")
		if !strings.HasPrefix(name, EnvPrefix) || otherEnv.MatchString(name) {
			continue
		}
		k := l.schema.byEnv[name]
		if k == nil {
			hint := "see doc/config.md for the names"
			if best := nearest(name, names); best != "" {
				hint = "did you mean " + strings.ToUpper(best) + "?"
			}
			l.add("environment "+name, "", "sets no key; "+hint)
			continue
		}
		put(tree, k.path, l.loose(k, "environment "+name, text))
	}
	if err := l.v.MergeConfigMap(tree); err != nil {
		l.add("environment", "", err.Error())
	}
}

// flags puts the flags into viper's uppermost layer.
func (l *loading) flags() {
	var paths []string
	for path := range l.o.Flags {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	for _, path := range paths {
		k := l.schema.keys[path]
		if k == nil {
			parent, name := "", path
			if dot := strings.LastIndexByte(path, '.'); dot >= 0 {
				parent, name = path[:dot], path[dot+1:]
			}
			text := unknown(path, l.schema.sections[0].names)
			if sec := l.schema.known[parent]; sec != nil {
				text = l.schema.stranger(sec, name)
			}
			l.add("flag", path, text)
			continue
		}
		if s := l.loose(k, "flag", l.o.Flags[path]); s != nil {
			l.v.Set(path, s)
		}
	}
}

func (l *loading) loose(k *key, where, text string) *setting {
	return l.read(k, where, func(v reflect.Value, bad report) { setLoose(v, text, k.element, bad) },
		func(_ *yaml.Node, path, text string) { l.add(where, path, text) })
}

// check asks each section, and then the whole, whether the values are possible.
// A key that could not be read at all has its default here: not reported twice.
func (l *loading) check(root reflect.Value) {
	reported := map[string]bool{}
	for _, p := range l.problems {
		reported[indexText.ReplaceAllString(p.Key, "")] = true
	}
	report := func(section string, err error) {
		for _, e := range flatten(err) {
			path, text := splitCheck(section, e)
			if !reported[indexText.ReplaceAllString(path, "")] {
				l.add(l.where(path), path, text)
			}
		}
	}
	for _, sec := range l.schema.sections {
		if sec.path == "" || strings.Contains(sec.path, ".") {
			continue // a section checks those inside it
		}
		if c, ok := root.FieldByIndex(sec.index).Interface().(interface{ Check() error }); ok {
			report(sec.path, c.Check())
		}
	}
	if c, ok := root.Interface().(interface{ Check() error }); ok {
		report("", c.Check())
	}
}

// where is the place of a value, or of the nearest thing around it that is
// written down.
func (l *loading) where(path string) string {
	for ; path != ""; path = path[:max(0, strings.LastIndexAny(path, ".["))] {
		if w := l.wheres[path]; w != "" {
			return w
		}
		if l.schema.keys[path] != nil {
			return "default"
		}
	}
	return l.o.File
}
