//! A template looked through before it runs: what cannot be bounded is refused, and every `+` and `~` becomes a call.

use super::vocabulary::{ADD, CONCAT, KEPT, TURNED};
use crate::error::{Error, Result};
use minijinja::machinery::ast::{BinOpKind, CallArg, Expr, Stmt};
use minijinja::machinery::{Span, Token, WhitespaceConfig, parse, tokenize};
use minijinja::syntax::SyntaxConfig;

/// Words and signs of one tag. Operators behind one another nest as deeply as there are many, and whatever looks at them
/// comes back to itself as often; the parser counts brackets and blocks alone.
const MOST_TOKENS: usize = 1000;

/// Characters of the library's message that are shown.
const MOST_SHOWN: usize = 400;

/// A template that keeps within its bounds.
pub(super) struct Bounded {
    pub(super) text: String,
    /// Bytes of the longest text it writes as it stands there.
    pub(super) longest_text: usize,
}

/// Rewrites a template so that what it makes is counted.
pub(super) fn bounded(source: &str) -> Result<Bounded> {
    // Jinja reads all ends of lines as one.
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    // Marks for training on the model's own turns, which say nothing of the text: to Jinja they are unknown statements.
    let source = as_blocks(&source);
    let whitespace =
        WhitespaceConfig { trim_blocks: true, lstrip_blocks: true, ..WhitespaceConfig::default() };
    check_tags(&source, whitespace)?;
    let tree = parse(&source, "template", SyntaxConfig, whitespace).map_err(|e| wrong(&e))?;
    let mut walk = Walk { source: &source, edits: Vec::new(), longest_text: 0 };
    walk.statement(&tree)?;
    let Walk { mut edits, longest_text, .. } = walk;
    // Edits at one place stay in order, since the outermost opens first; a call closes before the sign behind it.
    edits.sort_by_key(|edit| (edit.at, edit.removes));
    let (mut text, mut from) = (String::with_capacity(source.len() + edits.len() * 8), 0);
    for Edit { at, removes, text: new } in edits {
        text.push_str(source.get(from..at).unwrap_or_default());
        text.push_str(new);
        from = at + removes;
    }
    text.push_str(source.get(from..).unwrap_or_default());
    Ok(Bounded { text, longest_text })
}

/// Refuses tags that are too long.
fn check_tags(source: &str, whitespace: WhitespaceConfig) -> Result<()> {
    let mut count = 0;
    for token in tokenize(source, false, SyntaxConfig, whitespace) {
        let (token, span) = token.map_err(|e| wrong(&e))?;
        count = if matches!(token, Token::VariableStart | Token::BlockStart) { 0 } else { count + 1 };
        if count > MOST_TOKENS {
            return Err(at(span, format!("a tag has more than {MOST_TOKENS} words and signs")));
        }
    }
    Ok(())
}

/// `generation` blocks as blocks that are always taken.
fn as_blocks(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(len) = rest[start + 2..].find("%}") else { break };
        let (before, tag) = (&rest[..start], &rest[start..start + len + 4]);
        let inner = tag[2..tag.len() - 2].trim_matches(['-', '+']).trim();
        text.push_str(before);
        text.push_str(&match inner {
            "generation" => tag.replacen("generation", "if true", 1),
            "endgeneration" => tag.replacen("endgeneration", "endif", 1),
            _ => tag.to_owned(),
        });
        rest = &rest[start + len + 4..];
    }
    text.push_str(rest);
    text
}

/// Whether a pass of a loop may end before its end.
fn leaves(body: &[Stmt<'_>]) -> bool {
    body.iter().any(|statement| match statement {
        Stmt::Break(_) | Stmt::Continue(_) => true,
        Stmt::IfCond(condition) => leaves(&condition.true_body) || leaves(&condition.false_body),
        Stmt::WithBlock(with) => leaves(&with.body),
        _ => false,
    })
}

/// Where an expression starts: the spans of what follows another postfix or a filter start at that one.
fn leftmost(expression: &Expr<'_>) -> usize {
    match expression {
        Expr::Slice(of) => leftmost(&of.expr),
        Expr::GetItem(of) => leftmost(&of.expr),
        Expr::GetAttr(of) => leftmost(&of.expr),
        Expr::Call(of) => leftmost(&of.expr),
        Expr::Test(of) => leftmost(&of.expr),
        Expr::Filter(of) if of.expr.is_some() => of.expr.as_ref().map_or(0, leftmost),
        other => other.span().start_offset as usize,
    }
}

/// Bytes to take out of a text, and what to put there.
struct Edit {
    at: usize,
    removes: usize,
    text: &'static str,
}

struct Walk<'a> {
    source: &'a str,
    edits: Vec<Edit>,
    longest_text: usize,
}

impl Walk<'_> {
    fn all(&mut self, statements: &[Stmt<'_>]) -> Result<()> {
        statements.iter().try_for_each(|statement| self.statement(statement))
    }

    fn statement(&mut self, statement: &Stmt<'_>) -> Result<()> {
        match statement {
            Stmt::Template(template) => self.all(&template.children),
            Stmt::EmitExpr(emit) => self.expression(&emit.expr),
            Stmt::EmitRaw(raw) => {
                self.longest_text = self.longest_text.max(raw.raw.len());
                Ok(())
            }
            Stmt::ForLoop(each) => {
                if each.recursive {
                    return refuse(each.span(), "a recursive loop");
                }
                if !each.else_body.is_empty() && leaves(&each.body) {
                    // Jinja takes the other branch where no pass came to its end, the library where there was none.
                    return Err(at(each.span(), "break and continue in a loop with else are not supported"));
                }
                self.expression(&each.iter)?;
                each.filter_expr.iter().try_for_each(|expression| self.expression(expression))?;
                self.all(&each.body)?;
                self.all(&each.else_body)
            }
            Stmt::IfCond(condition) => {
                self.expression(&condition.expr)?;
                self.all(&condition.true_body)?;
                self.all(&condition.false_body)
            }
            Stmt::WithBlock(with) => {
                with.assignments.iter().try_for_each(|(_, value)| self.expression(value))?;
                self.all(&with.body)
            }
            Stmt::Set(set) => {
                match &set.target {
                    Expr::GetAttr(target) => self.kept(target.span(), &set.expr)?,
                    Expr::List(names) if names.items.iter().any(|name| matches!(name, Expr::GetAttr(_))) => {
                        return refuse(names.span(), "setting several attributes at once");
                    }
                    _ => {}
                }
                self.expression(&set.expr)
            }
            Stmt::SetBlock(set) => {
                set.filter.iter().try_for_each(|filter| self.expression(filter))?;
                self.all(&set.body)
            }
            Stmt::FilterBlock(block) => {
                self.expression(&block.filter)?;
                self.all(&block.body)
            }
            Stmt::AutoEscape(block) => refuse(block.span(), "autoescape"),
            Stmt::Macro(one) => {
                one.defaults.iter().try_for_each(|value| self.expression(value))?;
                self.all(&one.body)
            }
            Stmt::CallBlock(block) => refuse(block.span(), "a call block"),
            Stmt::Do(call) => {
                self.expression(&call.call.expr)?;
                self.arguments(&call.call.args)
            }
            Stmt::Continue(_) | Stmt::Break(_) => Ok(()),
            Stmt::Block(one) => refuse(one.span(), "block"),
            Stmt::Import(one) => refuse(one.span(), "import"),
            Stmt::FromImport(one) => refuse(one.span(), "import"),
            Stmt::Extends(one) => refuse(one.span(), "extends"),
            Stmt::Include(one) => refuse(one.span(), "include"),
        }
    }

    fn expression(&mut self, expression: &Expr<'_>) -> Result<()> {
        match expression {
            Expr::Var(_) | Expr::Const(_) => Ok(()),
            Expr::Slice(slice) => {
                if let Some(step) = &slice.step {
                    self.step(slice.span(), &slice.expr, step)?;
                }
                self.expression(&slice.expr)?;
                let bounds = [&slice.start, &slice.stop, &slice.step];
                bounds.into_iter().flatten().try_for_each(|bound| self.expression(bound))
            }
            Expr::UnaryOp(one) => self.expression(&one.expr),
            Expr::BinOp(both) => {
                match both.op {
                    BinOpKind::Add => self.call(ADD, both.span(), &both.left, '+')?,
                    BinOpKind::Concat => self.call(CONCAT, both.span(), &both.left, '~')?,
                    BinOpKind::Mul => return refuse(both.span(), "*"),
                    BinOpKind::Pow => return refuse(both.span(), "**"),
                    _ => {}
                }
                self.expression(&both.left)?;
                self.expression(&both.right)
            }
            Expr::Compare(compared) => {
                self.expression(&compared.expr)?;
                compared.ops.iter().try_for_each(|op| self.expression(&op.expr))
            }
            Expr::IfExpr(choice) => {
                self.expression(&choice.test_expr)?;
                self.expression(&choice.true_expr)?;
                choice.false_expr.iter().try_for_each(|expression| self.expression(expression))
            }
            Expr::Filter(filter) => {
                filter.expr.iter().try_for_each(|expression| self.expression(expression))?;
                self.arguments(&filter.args)
            }
            Expr::Test(test) => {
                self.expression(&test.expr)?;
                self.arguments(&test.args)
            }
            Expr::GetAttr(of) => self.expression(&of.expr),
            Expr::GetItem(of) => {
                self.expression(&of.expr)?;
                self.expression(&of.subscript_expr)
            }
            Expr::Call(call) => {
                self.expression(&call.expr)?;
                self.arguments(&call.args)
            }
            Expr::List(list) => {
                self.brackets(list.span(), list.items.first())?;
                list.items.iter().try_for_each(|item| self.expression(item))
            }
            Expr::Map(map) => {
                self.brackets(map.span(), None)?;
                map.keys.iter().chain(&map.values).try_for_each(|item| self.expression(item))
            }
        }
    }

    fn arguments(&mut self, arguments: &[CallArg<'_>]) -> Result<()> {
        arguments.iter().try_for_each(|argument| match argument {
            CallArg::Pos(value) | CallArg::Kwarg(_, value) => self.expression(value),
            CallArg::PosSplat(value) | CallArg::KwargSplat(value) => self.expression(value),
        })
    }

    /// Has a list or map, whose brackets the span holds, looked at when it is made.
    fn brackets(&mut self, span: Span, first: Option<&Expr<'_>>) -> Result<()> {
        let (start, end) = (span.start_offset as usize, span.end_offset as usize);
        let text = self.source.get(start..end).unwrap_or_default();
        let is_closed = [("[", "]"), ("(", ")"), ("{", "}")]
            .iter()
            .any(|(open, close)| text.len() > 1 && text.starts_with(open) && text.ends_with(close));
        if !is_closed || first.is_some_and(|first| first.span().start_offset as usize <= start) {
            return refuse(span, "a list without brackets");
        }
        self.around(start, end, KEPT);
        Ok(())
    }

    /// Has what an attribute is set to looked at first.
    fn kept(&mut self, target: Span, value: &Expr<'_>) -> Result<()> {
        let (behind, end) = (target.end_offset as usize, value.span().end_offset as usize);
        let before = self.source.get(behind..).unwrap_or_default();
        let sign = before.find(|c: char| !c.is_whitespace()).filter(|at| before[*at..].starts_with('='));
        let after = self.source.get(end..).unwrap_or_default();
        let close = after.find(|c: char| !c.is_whitespace() && c != ')');
        let close = close.filter(|at| ["%}", "-%}", "+%}"].iter().any(|sign| after[*at..].starts_with(sign)));
        let (Some(sign), Some(close)) = (sign, close) else {
            return refuse(target, "setting an attribute as it is written here");
        };
        self.around(behind + sign + 1, end + close, KEPT);
        Ok(())
    }

    fn around(&mut self, start: usize, end: usize, function: &'static str) {
        self.edits.push(Edit { at: start, removes: 0, text: function });
        self.edits.push(Edit { at: end, removes: 0, text: ")" });
    }

    /// Turns `[::-1]` into a call: slices backwards of what is empty break the library.
    fn step(&mut self, span: Span, of: &Expr<'_>, step: &Expr<'_>) -> Result<()> {
        if matches!(step, Expr::Const(step) if i64::try_from(step.value.clone()).is_ok_and(|step| step > 0)) {
            return Ok(());
        }
        let (start, end) = (leftmost(of), span.end_offset as usize);
        let behind = of.span().end_offset as usize;
        let rest = self.source.get(behind..end).unwrap_or_default();
        let open = rest.find(|c: char| !c.is_whitespace() && c != ')').unwrap_or_default();
        if rest[open..].split_whitespace().collect::<String>() != "[::-1]" {
            return refuse(span, "a slice in such steps");
        }
        self.edits.push(Edit { at: start, removes: 0, text: TURNED });
        self.edits.push(Edit { at: behind + open, removes: rest.len() - open, text: ")" });
        Ok(())
    }

    /// Turns `left op right` into a call of a function.
    fn call(&mut self, function: &'static str, span: Span, left: &Expr<'_>, op: char) -> Result<()> {
        let (start, end) = (span.start_offset as usize, span.end_offset as usize);
        // Behind the left one stand spaces, the brackets that close it, and the sign.
        let behind = left.span().end_offset as usize;
        let rest = self.source.get(behind..end).unwrap_or_default();
        let sign = rest.find(|c: char| !c.is_whitespace() && c != ')');
        let Some(sign) = sign.filter(|at| rest[*at..].starts_with(op)) else {
            return refuse(span, &format!("{op} as it is written here"));
        };
        self.edits.push(Edit { at: behind + sign, removes: 1, text: "," });
        self.around(start, end, function);
        Ok(())
    }
}

/// What is wrong at a place of the template.
fn at(span: Span, problem: impl Into<String>) -> Error {
    Error::template(Some(span.start_line.into()), problem)
}

fn refuse<T>(span: Span, what: &str) -> Result<T> {
    Err(at(span, format!("{what} is not supported: what it makes could not be bounded")))
}

/// What the library says went wrong, with the line it says it of.
pub(super) fn wrong(error: &minijinja::Error) -> Error {
    let mut problem = match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    };
    if let Some(source) = std::error::Error::source(error) {
        problem = format!("{problem}: {source}");
    }
    // Parts of it come from the template: characters that would steer a terminal are escaped.
    let escaped = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    let mut shown: String = problem.chars().take(MOST_SHOWN).map(escaped).collect();
    if problem.chars().nth(MOST_SHOWN).is_some() {
        shown.push('…');
    }
    Error::template(error.line(), shown)
}
