package config

import "strings"

// relay/README.md's tables stand between these two lines.
const (
	readmeBegin = "<!-- settings:begin -->"
	readmeEnd   = "<!-- settings:end -->"
)

// settingsMarkdown returns the part of relay/README.md that lists all settings.
func settingsMarkdown() string {
	var b strings.Builder
	group := ""
	for _, row := range new(loader).table() {
		if row.group != group {
			group = row.group
			b.WriteString("\n#### " + group + "\n\n| Variable | Flag | Default | What it is |\n|---|---|---|---|\n")
		}
		variables, flags := "`"+row.variable()+"`", ""
		if row.secret != nil {
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
			help += ". For example: `" + alternatives.Replace(row.example) + "`"
		}
		help = strings.ToUpper(help[:1]) + help[1:]
		b.WriteString("| " + variables + " | " + flags + " | " + def + " | " + cell(help) + " |\n")
	}
	return b.String() + "\n"
}

// alternatives sets each example of several apart.
var alternatives = strings.NewReplacer(", ", "`, `", " or ", "` or `")

// cell returns a text as it stands in a table: nothing but what is in backquotes is
// read as Markdown or HTML.
func cell(text string) string {
	plain := strings.NewReplacer("|", `\|`, "<", "&lt;", ">", "&gt;")
	parts := strings.Split(text, "`")
	for i, part := range parts {
		if i%2 == 0 {
			parts[i] = plain.Replace(part)
		} else {
			parts[i] = strings.ReplaceAll(part, "|", `\|`)
		}
	}
	return strings.Join(parts, "`")
}
