package config

import (
	"encoding"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"bsmtpd/mail"
)

// report takes one problem at a node's line. path is relative to the value that
// is being read: "" for itself, "[2].secret" for a part of it.
type report func(n *yaml.Node, path, text string)

// setNode reads a value as the file writes it: texts and numbers as scalars,
// lists as sequences, lists of sections as sequences of mappings.
func setNode(dst reflect.Value, n *yaml.Node, element *schema, bad report) {
	n = resolve(n)
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		bad(n, "", "has no value; write one, or leave the key out for the default")
		return
	}
	switch {
	case element != nil:
		setSections(dst, n, element, bad)
	case dst.Kind() == reflect.Slice && !isText(dst.Type()):
		if n.Kind != yaml.SequenceNode {
			bad(n, "", fmt.Sprintf("%s is not a list; write [one, another]", show(n)))
			return
		}
		list := reflect.MakeSlice(dst.Type(), len(n.Content), len(n.Content))
		for i, item := range n.Content {
			setNode(list.Index(i), item, nil, func(n *yaml.Node, path, text string) {
				bad(n, fmt.Sprintf("[%d]%s", i, path), text)
			})
		}
		dst.Set(list)
	case n.Kind != yaml.ScalarNode:
		bad(n, "", fmt.Sprintf("%s is not allowed; %s", show(n), allowed(dst.Type())))
	default:
		if err := setText(dst, n.Value); err != nil {
			bad(n, "", err.Error())
		}
	}
}

func setSections(dst reflect.Value, n *yaml.Node, element *schema, bad report) {
	if n.Kind != yaml.SequenceNode {
		bad(n, "", fmt.Sprintf("%s is not a list of sections; begin each with \"- \"", show(n)))
		return
	}
	list := reflect.MakeSlice(dst.Type(), len(n.Content), len(n.Content))
	for i, item := range n.Content {
		element.setDefaults(list.Index(i))
		element.walk(item, func(k *key, _, value *yaml.Node) {
			setNode(list.Index(i).FieldByIndex(k.index), value, k.element, func(n *yaml.Node, path, text string) {
				bad(n, fmt.Sprintf("[%d].%s%s", i, k.path, path), text)
			})
		}, func(n *yaml.Node, path, text string) {
			bad(n, strings.TrimSuffix(fmt.Sprintf("[%d].%s", i, path), "."), text)
		})
	}
	dst.Set(list)
}

// setLoose reads a value as an environment variable, a flag or a default tag
// writes it: as in the file, but a list may also be "one,another".
func setLoose(dst reflect.Value, text string, element *schema, bad report) {
	if dst.Kind() != reflect.Slice || isText(dst.Type()) {
		if err := setText(dst, text); err != nil {
			bad(nil, "", err.Error())
		}
		return
	}
	if text = strings.TrimSpace(text); text == "" {
		dst.SetZero()
		return
	}
	n := &yaml.Node{Kind: yaml.SequenceNode}
	if element != nil || strings.HasPrefix(text, "[") {
		var doc yaml.Node
		if err := yaml.Unmarshal([]byte(text), &doc); err != nil || len(doc.Content) != 1 {
			bad(nil, "", fmt.Sprintf("%q is not a list; write as in a file: [{key: value}, …]", text))
			return
		}
		n = doc.Content[0]
	} else {
		for _, item := range strings.Split(text, ",") {
			n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: strings.TrimSpace(item)})
		}
	}
	setNode(dst, n, element, bad)
}

// setText reads a single value.
func setText(dst reflect.Value, text string) error {
	t := dst.Type()
	wrong := func() error { return fmt.Errorf("%q is not allowed; %s", text, allowed(t)) }
	switch {
	case t == durationType:
		d, err := parseDuration(text)
		if err != nil {
			return err
		}
		dst.SetInt(int64(d))
		return nil
	case isText(t):
		if text == "" && t != sizeType {
			dst.SetZero()
			return nil
		}
		return dst.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(text))
	}
	switch t.Kind() {
	case reflect.String:
		dst.SetString(text)
	case reflect.Bool:
		if text != "true" && text != "false" {
			return wrong()
		}
		dst.SetBool(text == "true")
	case reflect.Float64:
		f, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			return wrong()
		}
		dst.SetFloat(f)
	case reflect.Uint, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		u, err := strconv.ParseUint(text, 10, t.Bits())
		if err != nil {
			return wrong()
		}
		dst.SetUint(u)
	default:
		i, err := strconv.ParseInt(text, 10, t.Bits())
		if err != nil {
			return wrong()
		}
		dst.SetInt(i)
	}
	return nil
}

// allowed says how a value of the type is written.
func allowed(t reflect.Type) string {
	switch {
	case t == durationType:
		return "write a duration such as 30s, 20m, 4h or 5d"
	case t == sizeType:
		return "write a size such as 20MiB, 1.5GiB or 4096"
	case t.Kind() == reflect.Bool:
		return "write true or false"
	case t.Kind() == reflect.Float64:
		return "write a number"
	case t.Kind() >= reflect.Uint && t.Kind() <= reflect.Uint64:
		return fmt.Sprintf("write a whole number from 0 to %d", uint64(math.MaxUint64)>>(64-t.Bits()))
	case t.Kind() >= reflect.Int && t.Kind() <= reflect.Int64:
		return "write a whole number"
	}
	return "write a single value"
}

// parseDuration reads what time.ParseDuration reads, and d (24 h) and w (7 d).
// No duration of the configuration may be negative.
func parseDuration(s string) (time.Duration, error) {
	wrong := fmt.Errorf("%q is not a duration; write for example 30s, 20m, 4h or 5d", s)
	for unit, hours := range map[string]float64{"d": 24, "w": 7 * 24} {
		num, ok := strings.CutSuffix(s, unit)
		if !ok {
			continue
		}
		f, err := strconv.ParseFloat(num, 64)
		if err != nil || math.IsNaN(f) || f < 0 || f*hours >= math.MaxInt64/float64(time.Hour) {
			return 0, wrong
		}
		return time.Duration(f * hours * float64(time.Hour)), nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, wrong
	}
	return d, nil
}

// format writes a value as setText reads it.
func format(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case time.Duration:
		return formatDuration(x)
	case mail.Size:
		if back, err := mail.ParseSize(x.String()); err != nil || back != x {
			return strconv.FormatInt(int64(x), 10)
		}
		return x.String()
	case encoding.TextMarshaler:
		b, _ := x.MarshalText() // what was read can be written
		return string(b)
	}
	return fmt.Sprint(v.Interface())
}

// formatDuration leaves out the units that are zero: 20m, not 20m0s.
func formatDuration(d time.Duration) string {
	if d >= 48*time.Hour && d%(24*time.Hour) == 0 {
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func resolve(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// show names a node's value in an error.
func show(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a section"
	case yaml.SequenceNode:
		return "a list"
	}
	return strconv.Quote(n.Value)
}
