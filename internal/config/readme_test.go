package config

import "strings"

// The README's tables stand between these two lines.
const (
	readmeBegin = "<!-- settings:begin -->"
	readmeEnd   = "<!-- settings:end -->"
)

// settingsMarkdown is the part of the README that lists all settings.
func settingsMarkdown() string {
	var b strings.Builder
	group := ""
	for _, row := range table() {
		if row.group != group {
			group = row.group
			b.WriteString("\n#### " + group + "\n\n| Variable | Flag | Default | What it is |\n|---|---|---|---|\n")
		}
		variables, flags := "`"+row.env+"`", ""
		if row.secret {
			variables += ", `…_FILE`, `…_SECRET_ARN`"
		}
		for i, f := range row.flags() {
			if i > 0 {
				flags += ", "
			}
			flags += "`--" + f.Name + "`"
		}
		def := ""
		if row.def != "" {
			def = "`" + row.def + "`"
		}
		help := row.help
		if row.example != "" {
			help += ". For example: `" + row.example + "`"
		}
		help = strings.ToUpper(help[:1]) + help[1:]
		b.WriteString("| " + variables + " | " + flags + " | " + def + " | " + cell(help) + " |\n")
	}
	return b.String() + "\n"
}

// cell keeps a text from being read as Markdown or HTML.
func cell(text string) string {
	return strings.NewReplacer("|", `\|`, "<", "&lt;", ">", "&gt;", `\n`, "`\\n`").Replace(text)
}
