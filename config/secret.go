package config

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strings"

	"bsmtpd/host"
)

// maxSecret bounds a secret file in bytes.
const maxSecret = 64 << 10

// privateName matches the keys that name files only their readers may see.
var privateName = regexp.MustCompile(`(^|[._])(key_file|tls_key|token_file|password_file)$`)

// secrets fills in every secret that stands in a file of its own: where a key
// "x" is secret and has a neighbour "x_file", the file's content, without the
// line end, becomes the value of x. Files with private keys are only looked at:
// whoever uses them reads them. A file that everybody may read is refused.
func (l *loading) secrets(root reflect.Value) { l.secretsIn("", l.schema, root) }

func (l *loading) secretsIn(prefix string, s *schema, v reflect.Value) {
	for _, sec := range s.sections {
		for _, k := range sec.keys {
			at := v.FieldByIndex(k.index)
			if k.element != nil {
				for i := range at.Len() {
					l.secretsIn(fmt.Sprintf("%s%s[%d].", prefix, k.path, i), k.element, at.Index(i))
				}
				continue
			}
			if at.Kind() != reflect.String || at.String() == "" {
				continue
			}
			path, name := prefix+k.path, at.String()
			base, isFile := strings.CutSuffix(k.path, "_file")
			switch secret := s.keys[base]; {
			case isFile && secret != nil && secret.secret:
				l.secret(prefix+base, path, name, v.FieldByIndex(secret.index))
			case privateName.MatchString(k.path):
				if err := l.private(name); err != nil {
					l.add(l.where(path), path, err.Error())
				}
			}
		}
	}
}

func (l *loading) secret(path, filePath, file string, dst reflect.Value) {
	if dst.String() != "" {
		l.add(l.where(filePath), filePath, fmt.Sprintf("%s is set as well; use one of the two", path))
		return
	}
	if err := l.private(file); err != nil {
		l.add(l.where(filePath), filePath, err.Error())
		return
	}
	data, err := host.ReadFile(l.o.FS, file, maxSecret)
	var big *host.LimitError
	switch text := strings.TrimRight(string(data), "\r\n"); {
	case errors.As(err, &big):
		l.add(l.where(filePath), filePath, fmt.Sprintf("%s is larger than %d bytes; is it the right file?", file, big.Limit))
	case err != nil:
		l.add(l.where(filePath), filePath, err.Error())
	case text == "":
		l.add(l.where(filePath), filePath, file+" is empty; write the secret into it")
	default:
		dst.SetString(text)
	}
}

// private is an error when everybody may read the file, or nobody can.
func (l *loading) private(file string) error {
	info, err := l.o.FS.Stat(file)
	if err != nil {
		return err
	}
	if info.IsDir() {
		return fmt.Errorf("%s is a directory; name a file", file)
	}
	// A file system in memory has no owners, and its permissions say nothing.
	if info.Sys() != nil && info.Mode().Perm()&0o006 != 0 {
		return fmt.Errorf("everybody may read or change %s; run \"chmod o-rwx %s\"", file, file)
	}
	return nil
}
