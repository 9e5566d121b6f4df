package main

import (
	"flag"
	"fmt"
	"io"
	"strings"

	"github.com/aiondb/aiondb-ha/internal/term"
)

// writeOverview lists every command.
func writeOverview(w io.Writer, s term.Style) {
	fmt.Fprintf(w, "%s\n\n", "aiondb-ha "+s.Dim("— decides which database node is primary, and keeps it the only one"))
	fmt.Fprintf(w, "%s aiondb-ha COMMAND [flags]\n\n", s.Bold("usage:"))
	writeCommands(w, s, commands())
	fmt.Fprintf(w, "\nStart with %s, or read %s.\n", s.Bold("aiondb-ha demo"), s.Bold("aiondb-ha help COMMAND"))
	fmt.Fprintf(w, "Exit status: 0 done, 1 it failed (the reason is on standard error), 2 wrong usage.\n")
}

// writeGroup lists the commands of one group.
func writeGroup(w io.Writer, s term.Style, name string) {
	fmt.Fprintf(w, "%s aiondb-ha %s COMMAND [flags]\n\n", s.Bold("usage:"), name)
	var members []command
	for _, c := range commands() {
		if strings.HasPrefix(c.name, name+" ") {
			members = append(members, c)
		}
	}
	writeCommands(w, s, members)
}

func writeCommands(w io.Writer, s term.Style, list []command) {
	tab := term.NewTable()
	for _, c := range list {
		tab.Row("  "+s.Bold(c.name)+" "+c.args, c.short)
	}
	_ = tab.Write(w, s)
}

// writeHelp explains one command.
func writeHelp(w io.Writer, s term.Style, cmd *command) {
	usage := strings.TrimRight(cmd.name+" "+cmd.args, " ")
	fmt.Fprintf(w, "%s aiondb-ha %s\n\n%s.\n", s.Bold("usage:"), usage, strings.ToUpper(cmd.short[:1])+cmd.short[1:])
	if cmd.long != "" {
		fmt.Fprintf(w, "\n%s\n", cmd.long)
	}
	tab := term.NewTable()
	fs, _, _ := flagSet(cmd)
	fs.VisitAll(func(f *flag.Flag) {
		value, usage := flag.UnquoteUsage(f)
		if b, ok := f.Value.(interface{ IsBoolFlag() bool }); ok && b.IsBoolFlag() {
			value = ""
		}
		if usage != "" {
			tab.Row("  "+strings.TrimRight(dashed(f.Name)+" "+value, " "), usage)
		}
	})
	if tab.Len() > 0 {
		fmt.Fprintf(w, "\n%s\n", s.Bold("flags:"))
		_ = tab.Write(w, s)
	}
	if cmd.name == "serve" {
		writeSettings(w, s)
	}
	if len(cmd.examples) > 0 {
		fmt.Fprintf(w, "\n%s\n", s.Bold("examples:"))
		for _, e := range cmd.examples {
			fmt.Fprintf(w, "  %s\n", e)
		}
	}
}
