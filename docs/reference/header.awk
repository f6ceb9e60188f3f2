# SPDX-License-Identifier: Apache-2.0
# mest.h for Doxygen, which reads it through this filter: comments become documentation and keep their lines and
# columns, since many are tables.  The header stays free of marks.

function text(s) {
    gsub(/&/, "\\&amp;", s); gsub(/</, "\\&lt;", s); gsub(/>/, "\\&gt;", s); gsub(/[@\\]/, "\\\\&", s)
    return s
}
function finish(s) { sub(/ *\*\/.*/, "", s); return s }

# What is said of the file, headings and the licence.
/^\/\* [=-]+.*[=-]+ \*\/$/ || /SPDX-License-Identifier/ { print ""; next }

# A comment of its own.
!inside && /^ *\/\*/ {
    line = $0
    sub(/^ *\/\* ?/, "", line)
    start = seen++ ? "/** <pre>" : "/** @file\n<pre>"
    if (line ~ /\*\//) { print start text(finish(line)) "</pre> */"; next }
    print start text(line)
    inside = 1
    next
}
# One behind what it is about.
!inside && /[^ ].*\/\*/ {
    place = index($0, "/*")
    line = substr($0, place + 2)
    print substr($0, 1, place - 1) "/**<" (line ~ /\*\// ? text(finish(line)) " */" : text(line))
    inside = line ~ /\*\// ? 0 : 2
    next
}
inside {
    line = $0
    if (inside == 1) sub(/^ *\* ?/, "", line)
    if ($0 ~ /\*\//) {
        if ($0 ~ /^ *\*\//) line = "*/"
        print text(finish(line)) (inside == 1 ? "</pre> */" : " */")
        inside = 0
    } else print text(line)
    next
}
{ print }
