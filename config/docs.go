package config

import (
	"fmt"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

const docsHead = `# Configuration

<!-- Generated from the code: go test ./config -run Docs -update -->

A setting comes from four places; a later one wins:

1. the default below;
2. one YAML file, named by ` + "`--config FILE`" + `;
3. the environment variable of the key;
4. the flag ` + "`--set KEY=VALUE`" + `, for example ` + "`--set smtpd.max_message=20MB`" + `.

A key that does not exist, a value of the wrong kind and a value that is not
possible are errors, all reported at once with file and line;
` + "`bsmtpd check-config`" + ` does only that; with ` + "`--dump`" + ` it prints every value in force.

The file is read again when it changes and on SIGHUP. Keys that are live take
effect at once, the others at the next start; the log names both. A file with a
mistake changes nothing: the mistake is logged and the old settings stay.

| kind | written as |
| --- | --- |
| duration | ` + "`30s`, `20m`, `4h`, `5d`, `1h30m`" + ` |
| size | ` + "`20MiB`, `1.5GiB` (powers of 1024), `50MB` (powers of 1000), `4096`" + ` |
| list | ` + "`[one, another]`" + ` in the file, ` + "`one,another`" + ` in the environment |
| list of sections | a YAML list of mappings; in the environment ` + "`[{key: value}, …]`" + ` |

A secret can stand in a file of its own: the key that ends in ` + "`_file`" + ` names it.
Such a file, and one with a private key, is refused if everybody may read it.
`

// Docs is doc/config.md: every key with its meaning.
func Docs() string {
	var b strings.Builder
	b.WriteString(docsHead)
	configSchema.docs(&b)
	return b.String()
}

func (s *schema) docs(b *strings.Builder) {
	for _, sec := range s.sections {
		if sec.path == "" || len(sec.keys) == 0 && sec.doc == "" {
			continue
		}
		depth := 2 + strings.Count(sec.path, ".")
		fmt.Fprintf(b, "\n%s %s\n\n%s\n", strings.Repeat("#", depth), sec.path, sec.doc)
		table(b, sec.keys, true)
		for _, k := range sec.keys {
			if k.element == nil {
				continue
			}
			fmt.Fprintf(b, "\nEach element of `%s`:\n", k.path)
			for _, sub := range k.element.sections {
				table(b, sub.keys, false)
			}
		}
	}
}

func table(b *strings.Builder, keys []*key, env bool) {
	if len(keys) == 0 {
		return
	}
	if env {
		b.WriteString("\n| key | kind | default | live | environment | meaning |\n| --- | --- | --- | --- | --- | --- |\n")
	} else {
		b.WriteString("\n| key | kind | default | meaning |\n| --- | --- | --- | --- |\n")
	}
	for _, k := range keys {
		std, live, meaning := defaultText(k), "", k.doc
		if std != "" {
			std = "`" + std + "`"
		}
		if k.reload {
			live = "yes"
		}
		if k.secret {
			meaning += " Secret: never shown."
		}
		if env {
			fmt.Fprintf(b, "| `%s` | %s | %s | %s | `%s` | %s |\n", k.name(), typeName(k.typ), cell(std), live, k.env, cell(meaning))
		} else {
			fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", k.path, typeName(k.typ), cell(std), cell(meaning))
		}
	}
}

func cell(s string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(s), " "), "|", "\\|")
}

// hidden stands where Dump would show a secret.
const hidden = "(hidden)"

// Dump writes the settings as a file that Load reads, secrets hidden.
func Dump(c *Config) string {
	n := configSchema.node(reflect.ValueOf(c).Elem())
	out, err := yaml.Marshal(n)
	if err != nil {
		panic("config: settings that were read cannot be written: " + err.Error())
	}
	return string(out)
}

// node is the mapping of a whole struct.
func (s *schema) node(v reflect.Value) *yaml.Node {
	mappings := map[string]*yaml.Node{}
	for _, sec := range s.sections {
		m := &yaml.Node{Kind: yaml.MappingNode}
		mappings[sec.path] = m
		if sec.path != "" {
			parent, name := "", sec.path
			if dot := strings.LastIndexByte(sec.path, '.'); dot >= 0 {
				parent, name = sec.path[:dot], sec.path[dot+1:]
			}
			up := mappings[parent]
			up.Content = append(up.Content, scalar(name), m)
		}
		for _, k := range sec.keys {
			m.Content = append(m.Content, scalar(k.name()), valueNode(k, v.FieldByIndex(k.index)))
		}
	}
	return mappings[""]
}

func valueNode(k *key, v reflect.Value) *yaml.Node {
	if k.secret && !v.IsZero() {
		return scalar(hidden)
	}
	if v.Kind() != reflect.Slice || isText(v.Type()) {
		n := scalar(format(v))
		if v.Kind() == reflect.String { // quoted where it would be read as something else
			n.SetString(v.String())
		}
		return n
	}
	list := &yaml.Node{Kind: yaml.SequenceNode}
	for i := range v.Len() {
		if k.element != nil {
			list.Content = append(list.Content, k.element.node(v.Index(i)))
		} else {
			list.Content = append(list.Content, scalar(format(v.Index(i))))
		}
	}
	if k.element == nil || v.Len() == 0 {
		list.Style = yaml.FlowStyle
	}
	return list
}

func scalar(s string) *yaml.Node {
	n := new(yaml.Node)
	if s == "" {
		n.SetString(s)
		n.Style = yaml.DoubleQuotedStyle
		return n
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Value: s}
}
