package config

import (
	"encoding"
	"fmt"
	"reflect"
	"strings"
	"time"

	"bsmtpd/mail"
)

// EnvPrefix begins the name of every environment variable that sets a key:
// smtpd.max_message is BSMTPD_SMTPD_MAX_MESSAGE.
const EnvPrefix = "BSMTPD_"

// schema is what a configuration struct's tags say: its sections and keys in
// the order of the fields.
type schema struct {
	sections []*section
	keys     map[string]*key     // every key by its path
	byEnv    map[string]*key     // and by its environment variable
	known    map[string]*section // every section by its path, "" for the whole
}

// section is a struct of keys: a mapping in the file.
type section struct {
	path  string // "smtpd.tls"
	doc   string
	names []string // of what may stand in it, in order
	keys  []*key
	typ   reflect.Type
	index []int // where it is in the whole struct
}

// key is one setting.
type key struct {
	path    string // "smtpd.tls.cert_file"
	env     string
	typ     reflect.Type
	index   []int
	std     string // the default as the tag writes it
	doc     string
	reload  bool
	secret  bool
	element *schema // of a list of sections
}

// name is the last part of the path.
func (k *key) name() string { return k.path[strings.LastIndexByte(k.path, '.')+1:] }

var (
	durationType = reflect.TypeFor[time.Duration]()
	sizeType     = reflect.TypeFor[mail.Size]()
	textType     = reflect.TypeFor[encoding.TextUnmarshaler]()
)

func isText(t reflect.Type) bool { return reflect.PointerTo(t).Implements(textType) }

// isSection reports a struct that is a mapping in the file.
func isSection(t reflect.Type) bool { return t.Kind() == reflect.Struct && !isText(t) }

// isList reports a list of sections, such as the RADIUS clients.
func isList(t reflect.Type) bool { return t.Kind() == reflect.Slice && isSection(t.Elem()) }

// schemaOf reads the tags of a struct type. It panics on a type or tag that the
// documentation of Config does not allow: a mistake of whoever wrote the struct.
func schemaOf(t reflect.Type) *schema {
	s := &schema{keys: map[string]*key{}, byEnv: map[string]*key{}, known: map[string]*section{}}
	s.add(&section{typ: t})
	return s
}

func (s *schema) add(sec *section) {
	s.sections = append(s.sections, sec)
	s.known[sec.path] = sec
	s.fields(sec, sec.typ, sec.index)
}

func (s *schema) fields(sec *section, t reflect.Type, index []int) {
	for i := range t.NumField() {
		f := t.Field(i)
		at := append(append([]int(nil), index...), i)
		name := f.Tag.Get("key")
		switch {
		case name == "" && f.Anonymous && isSection(f.Type):
			s.fields(sec, f.Type, at)
			continue
		case name == "" || name == "-":
			continue // not a setting: a dependency that node fills in
		case !f.IsExported():
			panic(fmt.Sprintf("config: field %s of %s has a key and is not exported", f.Name, t))
		}
		path := strings.TrimPrefix(sec.path+"."+name, ".")
		sec.names = append(sec.names, name)
		if isSection(f.Type) {
			s.add(&section{path: path, doc: f.Tag.Get("doc"), typ: f.Type, index: at})
			continue
		}
		s.addKey(sec, &key{
			path: path, env: envName(path), typ: f.Type, index: at,
			std: f.Tag.Get("default"), doc: f.Tag.Get("doc"),
			reload: f.Tag.Get("reload") == "yes", secret: f.Tag.Get("secret") == "yes",
		})
	}
}

func (s *schema) addKey(sec *section, k *key) {
	if isList(k.typ) {
		k.element = schemaOf(k.typ.Elem())
	}
	if typeName(k.typ) == "" {
		panic(fmt.Sprintf("config: key %s has type %s, which cannot be written in a file", k.path, k.typ))
	}
	if other := s.byEnv[k.env]; other != nil {
		panic(fmt.Sprintf("config: keys %s and %s have the same environment variable %s", other.path, k.path, k.env))
	}
	sec.keys = append(sec.keys, k)
	s.keys[k.path] = k
	s.byEnv[k.env] = k
}

func envName(path string) string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(path, ".", "_"))
}

// typeName is the type in documents; "" for one that is not allowed.
func typeName(t reflect.Type) string {
	switch {
	case t == durationType:
		return "duration"
	case t == sizeType:
		return "size"
	case isList(t):
		return "list of sections"
	case isText(t):
		return "text"
	}
	switch t.Kind() {
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int32, reflect.Int64, reflect.Uint, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "whole number"
	case reflect.Float64:
		return "number"
	case reflect.Slice:
		if e := typeName(t.Elem()); e != "" && t.Elem().Kind() != reflect.Slice {
			return "list of " + plural(e)
		}
	}
	return ""
}

func plural(name string) string {
	if name == "text" {
		return "texts"
	}
	return name + "s"
}
