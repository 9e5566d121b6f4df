package settings

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strings"
)

// maxFileLen bounds a config file and a secret's file, in bytes.
const maxFileLen = 1 << 20

// value is a setting as somebody wrote it.
type value struct {
	text  string // trimmed, not empty
	from  string // where it stands: --node-id, AIONDB_HA_NODE_ID, node_id in ha.json
	layer int    // 0 flags, 1 environment, 2 file
}

// sources is what the three places say.
type sources struct {
	layers [3]map[string]value // by Option.Name; flags, environment, file
	faults faults
}

// faults collects what is wrong, a line each.
type faults struct{ list []error }

func (f *faults) add(format string, args ...any) {
	f.list = append(f.list, errors.New(strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", " ")))
}

// get returns the value of the first place that has one.
func (s *sources) get(name string) (value, bool) {
	for _, layer := range s.layers {
		if v, ok := layer[name]; ok {
			return v, true
		}
	}
	return value{}, false
}

// readSources reads all three places. environ is in the form of os.Environ.
func readSources(flags *Flags, environ []string) (s *sources, warnings []string) {
	s = &sources{}
	for i := range s.layers {
		s.layers[i] = make(map[string]value)
	}
	for name, text := range flags.values {
		s.set(0, name, text, "--"+name)
	}
	warnings = s.readEnviron(environ)
	if file, ok := s.get(configOption); ok {
		s.readFile(file)
	}
	return s, warnings
}

func (s *sources) set(layer int, name, text, from string) {
	if text = strings.TrimSpace(text); text != "" {
		s.layers[layer][name] = value{text, from, layer}
	}
}

// readEnviron takes our variables. One that nobody knows is most likely a
// misspelt one, but may be another program's: it is told, not refused.
func (s *sources) readEnviron(environ []string) (warnings []string) {
	byEnv := map[string]string{EnvPrefix + "CONFIG": configOption}
	for _, o := range Options() {
		byEnv[o.Env()] = o.Name
	}
	// Understood elsewhere: by the commands, by serve, and by AionDB itself.
	others := []string{EnvPrefix + "EXIT_WITH_STDIN", EnvPrefix + "ALGORITHM", EnvPrefix + "API_CA"}
	for _, pair := range environ {
		env, text, _ := strings.Cut(pair, "=")
		if name, ok := byEnv[env]; ok {
			s.set(1, name, text, env)
		} else if strings.HasPrefix(env, EnvPrefix) && !slices.Contains(others, env) {
			warnings = append(warnings, env+" is not a setting"+didYouMean(env, optionNames(Option.Env)))
		}
	}
	slices.Sort(warnings)
	return warnings
}

// readFile reads a config file: one JSON object of strings, numbers, booleans
// and, for lists, arrays of strings.
func (s *sources) readFile(path value) {
	raw, err := readSmall(path.text)
	if err != nil {
		s.faults.add("%s: the config file cannot be read: %v", path.from, err)
		return
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		s.faults.add(`%s: %s is not a JSON object: write {"node_id": 1, ...}`, path.from, path.text)
		return
	}
	byKey := make(map[string]Option)
	for _, o := range Options() {
		byKey[o.FileKey()] = o
	}
	seen := make(map[string]bool)
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			s.faults.add("%s: %v: mend the JSON", path.text, err)
			return
		}
		name := fmt.Sprint(key)
		var content any
		if err := dec.Decode(&content); err != nil {
			s.faults.add("%s: the value of %q: %v: mend the JSON", path.text, name, err)
			return
		}
		o, known := byKey[name]
		text, ok := scalar(content)
		switch {
		case !known:
			s.faults.add("%s: unknown setting %q%s", path.text, name, didYouMean(name, optionNames(Option.FileKey)))
		case seen[name]:
			s.faults.add("%s: %q is there twice: remove one", path.text, name)
		case !ok:
			s.faults.add("%s: %q must be text, a number, true or false, or a list of texts", path.text, name)
		default:
			s.set(2, o.Name, text, name+" in "+path.text)
		}
		seen[name] = true
		if known && o.Secret {
			if err := private(path.text); err != nil {
				s.faults.add("%s holds a secret: %v", path.text, err)
			}
		}
	}
	if _, err := dec.Token(); err != nil {
		s.faults.add("%s: the closing } is missing: mend the JSON", path.text)
		return
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		s.faults.add("%s: there is something after the closing }: remove it", path.text)
	}
}

func scalar(content any) (string, bool) {
	switch c := content.(type) {
	case nil:
		return "", true
	case string:
		return c, true
	case bool:
		return fmt.Sprint(c), true
	case json.Number:
		return c.String(), true
	case []any:
		var parts []string
		for _, p := range c {
			text, ok := p.(string)
			if !ok {
				return "", false
			}
			parts = append(parts, text)
		}
		return strings.Join(parts, ","), true
	}
	return "", false
}

func didYouMean(name string, candidates []string) string {
	if n := Nearest(name, candidates); n != "" {
		return ": did you mean " + n + "?"
	}
	return ": see aiondb-ha help serve for those there are"
}

// readSmall reads a regular file of at most maxFileLen bytes.
func readSmall(path string) ([]byte, error) {
	info, err := os.Stat(path) // before opening: to open a pipe waits for its writer
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxFileLen+1))
	if err == nil && len(raw) > maxFileLen {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxFileLen)
	}
	return raw, err
}

// readSecret reads a file that holds a secret, which not every user of the
// machine may. The error does not name a file that is not there: it may be the
// secret itself, given in the place of its file.
func readSecret(path string) ([]byte, error) {
	raw, err := readSmall(path)
	var missing *fs.PathError
	if errors.As(err, &missing) {
		return nil, fmt.Errorf("there is no such file that can be read (%w): give the name of the file", missing.Err)
	}
	if err == nil {
		err = private(path)
	}
	return raw, err
}

// private refuses a file that every user of the machine can read or write.
func private(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if perm := info.Mode().Perm(); perm&0o007 != 0 && runtime.GOOS != "windows" {
		return fmt.Errorf("every user of this machine may use %s (mode %04o): chmod 600 it", path, perm)
	}
	return nil
}
