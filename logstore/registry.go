package logstore

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrUnknownKind is wrapped by *UnknownKindError.
var ErrUnknownKind = errors.New("no such kind of store")

// UnknownKindError says which kinds there are. It wraps ErrUnknownKind.
type UnknownKindError struct {
	Name  string
	Known []string
}

func (e *UnknownKindError) Error() string {
	return fmt.Sprintf("%v: %q; there are %s", ErrUnknownKind, e.Name, strings.Join(e.Known, ", "))
}

// Unwrap returns ErrUnknownKind.
func (e *UnknownKindError) Unwrap() error { return ErrUnknownKind }

// Kind is a kind of store that can be opened by name. Package kinds has those of
// this module.
type Kind struct {
	// Name stands before the colon in KIND:PATH: lower case letters and digits.
	Name string

	// Summary is one line for people.
	Summary string

	// Looks tells whether what is at path looks like this kind. It only
	// reads, and not much. A kind that keeps nothing on disk has none.
	Looks func(path string) bool

	// Open opens the store at path, and makes it if it is not there.
	Open func(path string) (Store, error)

	// OpenFast is Open for a store that is worthless until it is complete: what it
	// acknowledges need not be durable before Close. nil: it is the same as Open.
	OpenFast func(path string) (Store, error)

	// OpenSource opens what is at path for reading alone, changes nothing, and
	// keeps others from writing to it until it is closed. nil: there is nothing
	// to copy, because nothing is kept.
	OpenSource func(path string) (Source, error)

	// Program is the Go code with which a program opens this kind at path: for
	// people who change theirs.
	Program func(path string) string
}

// Registry is a set of kinds. It never changes.
type Registry struct{ kinds []Kind }

// NewRegistry returns the registry of the kinds given. Two of one name, or one
// without a name or an Open, are a mistake of the program: NewRegistry panics.
func NewRegistry(kinds ...Kind) *Registry {
	for i, k := range kinds {
		if k.Name == "" || k.Open == nil {
			panic(fmt.Sprintf("logstore: kind %q has no name or cannot be opened", k.Name))
		}
		if slices.ContainsFunc(kinds[:i], func(o Kind) bool { return o.Name == k.Name }) {
			panic(fmt.Sprintf("logstore: two kinds of the name %q", k.Name))
		}
	}
	return &Registry{kinds: slices.Clone(kinds)}
}

// Names returns the names of the kinds, in the order in which they were given.
func (r *Registry) Names() []string {
	var names []string
	for _, k := range r.kinds {
		names = append(names, k.Name)
	}
	return names
}

// Kind returns the kind of a name, or a *UnknownKindError.
func (r *Registry) Kind(name string) (Kind, error) {
	for _, k := range r.kinds {
		if k.Name == name {
			return k, nil
		}
	}
	return Kind{}, &UnknownKindError{Name: name, Known: r.Names()}
}

// Location is a KIND:PATH.
type Location struct {
	Kind Kind
	Path string
}

func (l Location) String() string { return l.Kind.Name + ":" + l.Path }

// Parse reads KIND:PATH. A colon in PATH is part of it.
func (r *Registry) Parse(text string) (Location, error) {
	name, path, ok := strings.Cut(text, ":")
	if !ok {
		return Location{}, fmt.Errorf("%q: want KIND:PATH, such as %s:/var/lib/raft", text, r.kinds[0].Name)
	}
	k, err := r.Kind(name)
	if err != nil {
		return Location{}, err
	}
	if path == "" && k.Looks != nil {
		return Location{}, fmt.Errorf("%q: the path is missing", text)
	}
	return Location{Kind: k, Path: path}, nil
}

// Open opens the store at KIND:PATH, and makes it if it is not there.
func (r *Registry) Open(location string) (Store, error) {
	l, err := r.Parse(location)
	if err != nil {
		return nil, err
	}
	return l.Kind.Open(l.Path)
}

// Recognise returns the kinds that what is at path looks like.
func (r *Registry) Recognise(path string) []Kind {
	var found []Kind
	for _, k := range r.kinds {
		if k.Looks != nil && k.Looks(path) {
			found = append(found, k)
		}
	}
	return found
}
