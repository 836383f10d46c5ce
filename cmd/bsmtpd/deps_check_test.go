package main_test

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/tools/go/packages"
)

// modulePath is the module's name, also of the bad one in testdata.
const modulePath = "bsmtpd"

// code is a module with its types.
type code struct {
	root     string
	packages []*packages.Package
	found    []string
}

func load(t *testing.T, dir string) *code {
	t.Helper()
	root, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	pkgs, err := packages.Load(&packages.Config{
		Mode: packages.NeedName | packages.NeedFiles | packages.NeedImports | packages.NeedSyntax |
			packages.NeedTypes | packages.NeedTypesInfo | packages.NeedTypesSizes,
		Dir: root,
	}, "./...")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pkgs {
		for _, e := range p.Errors {
			t.Fatalf("%s does not build: %v", p.PkgPath, e)
		}
	}
	return &code{root: root, packages: pkgs}
}

// check gives "file:line: text" for everything that is not allowed, in order.
func (c *code) check() []string {
	for _, p := range c.packages {
		f := folder{c: c, pkg: p, name: strings.TrimPrefix(strings.TrimPrefix(p.PkgPath, modulePath), "/")}
		f.imports()
		for _, file := range p.Syntax {
			f.file = file
			f.excuses = excuses(p.Fset, file)
			f.uses()
			f.flow()
			f.state()
		}
	}
	slices.Sort(c.found)
	return slices.Compact(c.found)
}

// folder is one package under check.
type folder struct {
	c       *code
	pkg     *packages.Package
	name    string
	file    *ast.File
	excuses map[int]bool // lines that a comment "//deterministic: reason" covers
}

func (f *folder) report(pos token.Pos, format string, args ...any) {
	at := f.pkg.Fset.Position(pos)
	file, err := filepath.Rel(f.c.root, at.Filename)
	if err != nil {
		file = at.Filename
	}
	f.c.found = append(f.c.found, fmt.Sprintf("%s:%d: %s", file, at.Line, fmt.Sprintf(format, args...)))
}

func (f *folder) isPure() bool { return has(pure, f.name) }

func has(list, word string) bool { return slices.Contains(strings.Fields(list), word) }

// imports holds the package to its row of folderRules.
func (f *folder) imports() {
	i := slices.IndexFunc(folderRules, func(r folderRule) bool {
		ok, _ := path.Match(r.folder, f.name)
		return ok
	})
	for _, file := range f.pkg.Syntax {
		if i < 0 {
			f.report(file.Package, "folder %q is not in the table of folders", f.name)
			return
		}
		for _, spec := range file.Imports {
			imported, _ := strconv.Unquote(spec.Path.Value)
			rule := folderRules[i]
			if in, ok := strings.CutPrefix(imported, modulePath+"/"); ok {
				if !has(rule.project, in) {
					f.report(spec.Pos(), "%s may not import %s", f.name, in)
				}
				continue
			}
			first, _, _ := strings.Cut(imported, "/")
			if strings.Contains(first, ".") && !slices.ContainsFunc(strings.Fields(rule.modules), func(m string) bool {
				return imported == m || strings.HasPrefix(imported, m+"/")
			}) {
				f.report(spec.Pos(), "%s may not import %s", f.name, imported)
			}
		}
	}
}

// uses looks at everything that is named from another package.
func (f *folder) uses() {
	ast.Inspect(f.file, func(n ast.Node) bool {
		id, ok := n.(*ast.Ident)
		if !ok {
			return true
		}
		obj := f.pkg.TypesInfo.Uses[id]
		if obj == nil || obj.Pkg() == nil || obj.Pkg() == f.pkg.Types || isMethodOrField(obj) && !strings.HasPrefix(obj.Name(), "ListenAndServe") {
			return true
		}
		path := obj.Pkg().Path()
		if banned(outsideBans, path, obj.Name()) && !f.excepted(path, obj.Name()) {
			f.report(id.Pos(), "only host may use %s.%s", path, obj.Name())
		}
		if f.isPure() && banned(pureBans, path, obj.Name()) {
			f.report(id.Pos(), "%s decides; it may not use %s.%s", f.name, path, obj.Name())
		}
		return true
	})
}

// isMethodOrField reports what is reached through a value: the value's type or
// constructor was looked at where it was named.
func isMethodOrField(obj types.Object) bool {
	switch o := obj.(type) {
	case *types.Func:
		return o.Signature().Recv() != nil
	case *types.Var:
		return o.IsField()
	}
	return false
}

func banned(bans map[string]string, path, name string) bool {
	names, ok := bans[path]
	return ok && (names == "*" || has(names, name))
}

func (f *folder) excepted(path, name string) bool {
	for _, e := range exceptions {
		if e.folder == f.name && (e.uses == "*" || has(e.uses, path+".*") || has(e.uses, path+"."+name)) {
			return true
		}
	}
	return false
}

// excuses finds the lines with a comment "//deterministic: reason", and those
// under such a comment.
func excuses(fset *token.FileSet, file *ast.File) map[int]bool {
	lines := map[int]bool{}
	for _, group := range file.Comments {
		for _, c := range group.List {
			reason, ok := strings.CutPrefix(c.Text, "//deterministic:")
			if ok && strings.TrimSpace(reason) != "" {
				line := fset.Position(c.Pos()).Line
				lines[line], lines[line+1] = true, true
			}
		}
	}
	return lines
}

// flow looks for goroutines and for orders that differ from run to run.
func (f *folder) flow() {
	var sorted []ast.Node // arguments of slices.Sorted and its like
	for _, decl := range f.file.Decls {
		fn, _ := decl.(*ast.FuncDecl)
		starts := fn != nil && fn.Recv == nil && fn.Name.Name == "init" || fn == nil
		ast.Inspect(decl, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				if f.isPure() {
					f.report(n.Pos(), "%s decides; it may not start goroutines", f.name)
				} else if starts {
					f.report(n.Pos(), "a goroutine is started before main")
				}
			case *ast.SelectStmt:
				if f.isPure() {
					f.report(n.Pos(), "%s decides; it may not wait", f.name)
				}
			case *ast.RangeStmt:
				if f.isPure() && isMap(f.pkg.TypesInfo.TypeOf(n.X)) && !f.excused(n) {
					f.report(n.Pos(), "the order of a map differs from run to run; sort, or say //deterministic: why it does not matter")
				}
			case *ast.CallExpr:
				if f.calls(n, "slices", "Sorted", "SortedFunc", "SortedStableFunc") {
					sorted = append(sorted, n.Args[0])
				}
				if f.isPure() && f.calls(n, "maps", "Keys", "Values", "All") && !slices.Contains(sorted, ast.Node(n)) && !f.excused(n) {
					f.report(n.Pos(), "the order of a map differs from run to run; sort, or say //deterministic: why it does not matter")
				}
			}
			return true
		})
	}
}

func (f *folder) excused(n ast.Node) bool { return f.excuses[f.pkg.Fset.Position(n.Pos()).Line] }

func isMap(t types.Type) bool {
	if t == nil {
		return false
	}
	_, ok := t.Underlying().(*types.Map)
	return ok
}

// calls reports a call of one of a package's functions.
func (f *folder) calls(call *ast.CallExpr, path string, names ...string) bool {
	fun := call.Fun
	if index, ok := fun.(*ast.IndexExpr); ok {
		fun = index.X
	}
	sel, ok := fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	obj := f.pkg.TypesInfo.Uses[sel.Sel]
	return obj != nil && obj.Pkg() != nil && obj.Pkg().Path() == path && slices.Contains(names, obj.Name())
}

// state looks for package variables that hold state: three nodes run in one
// process. It finds the types that only make sense for state (locks, atomics,
// channels) and variables that a function assigns to, also by element or field.
// What a function changes through a pointer or a method it does not see.
func (f *folder) state() {
	for _, decl := range f.file.Decls {
		switch decl := decl.(type) {
		case *ast.GenDecl:
			for _, spec := range decl.Specs {
				if v, ok := spec.(*ast.ValueSpec); ok && decl.Tok == token.VAR {
					f.variables(v)
				}
			}
		case *ast.FuncDecl:
			if decl.Recv != nil || decl.Name.Name != "init" {
				f.assignments(decl)
			}
		}
	}
}

func (f *folder) variables(spec *ast.ValueSpec) {
	for _, id := range spec.Names {
		obj := f.pkg.TypesInfo.Defs[id]
		if obj != nil && holdsState(obj.Type(), 0) && !f.allowedState(id.Name) {
			f.report(id.Pos(), "package variable %s holds state (%s)", id.Name, types.TypeString(obj.Type(), types.RelativeTo(f.pkg.Types)))
		}
	}
}

func (f *folder) allowedState(name string) bool {
	for _, s := range packageState {
		if s.folder == f.name && s.name == name {
			return true
		}
	}
	return false
}

func holdsState(t types.Type, depth int) bool {
	if named, ok := types.Unalias(t).(*types.Named); ok && named.Obj().Pkg() != nil {
		if path := named.Obj().Pkg().Path(); path == "sync" || path == "sync/atomic" {
			return true
		}
	}
	switch u := t.Underlying().(type) {
	case *types.Chan:
		return true
	case *types.Pointer:
		return depth < 3 && holdsState(u.Elem(), depth+1) && strings.HasPrefix(types.TypeString(u.Elem(), nil), "sync")
	case *types.Array:
		return depth < 3 && holdsState(u.Elem(), depth+1)
	case *types.Struct:
		for i := range u.NumFields() {
			if depth < 3 && holdsState(u.Field(i).Type(), depth+1) {
				return true
			}
		}
	}
	return false
}

func (f *folder) assignments(fn *ast.FuncDecl) {
	changed := func(e ast.Expr) {
		if id := rootOf(e); id != nil {
			obj := f.pkg.TypesInfo.Uses[id]
			if v, ok := obj.(*types.Var); ok && v.Parent() == f.pkg.Types.Scope() && !f.allowedState(id.Name) {
				f.report(e.Pos(), "package variable %s is changed", id.Name)
			}
		}
	}
	ast.Inspect(fn, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			for _, e := range n.Lhs {
				changed(e)
			}
		case *ast.IncDecStmt:
			changed(n.X)
		case *ast.UnaryExpr:
			if n.Op == token.AND {
				changed(n.X)
			}
		case *ast.CallExpr:
			if id, ok := n.Fun.(*ast.Ident); ok && (id.Name == "delete" || id.Name == "clear") && len(n.Args) > 0 {
				if _, builtin := f.pkg.TypesInfo.Uses[id].(*types.Builtin); builtin {
					changed(n.Args[0])
				}
			}
		}
		return true
	})
}

// rootOf is the variable that an expression is a part of.
func rootOf(e ast.Expr) *ast.Ident {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x
		case *ast.IndexExpr:
			e = x.X
		case *ast.SelectorExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		default:
			return nil // also *p: what p points at is not seen
		}
	}
}

// compareWithWants matches reports with the comments "// want TEXT".
func compareWithWants(t *testing.T, c *code, found []string) {
	t.Helper()
	want := map[string]string{} // "file:line" → text
	for _, p := range c.packages {
		for _, name := range p.GoFiles {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			rel, _ := filepath.Rel(c.root, name)
			for i, line := range strings.Split(string(text), "\n") {
				if _, w, ok := strings.Cut(line, "// want "); ok {
					want[fmt.Sprintf("%s:%d", rel, i+1)] = w
				}
			}
		}
	}
	if len(want) < 20 {
		t.Fatalf("found %d lines that want a report", len(want))
	}
	for _, line := range found {
		parts := strings.SplitN(line, ": ", 2)
		w, ok := want[parts[0]]
		if !ok || !strings.Contains(parts[1], w) {
			t.Errorf("reported and not wanted: %s", line)
		}
		delete(want, parts[0])
	}
	for at, w := range want {
		t.Errorf("wanted and not reported: %s: %s", at, w)
	}
}
