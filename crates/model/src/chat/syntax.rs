//! A template looked through before it runs: what cannot be bounded is refused, and every `+` and `~` becomes a call.

use super::bounds::{ADD, CONCAT};
use super::wrong;
use crate::{Error, Result};
use minijinja::machinery::ast::{BinOpKind, CallArg, Expr, Stmt};
use minijinja::machinery::{Span, WhitespaceConfig, parse};
use minijinja::syntax::SyntaxConfig;

/// A template that keeps within its bounds.
pub(super) struct Bounded {
    pub(super) text: String,
    /// Bytes of the longest text it writes as it stands there.
    pub(super) longest_text: usize,
}

/// Rewrites a template so that what it makes is counted.
pub(super) fn bounded(source: &str) -> Result<Bounded> {
    // Marks for training on the model's own turns, which say nothing of the text: to Jinja they are unknown statements.
    let source = as_blocks(source);
    let whitespace =
        WhitespaceConfig { trim_blocks: true, lstrip_blocks: true, ..WhitespaceConfig::default() };
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

/// `generation` blocks as blocks that are always taken.
fn as_blocks(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(len) = rest[start..].find("%}") else { break };
        let (before, tag) = (&rest[..start], &rest[start..start + len + 2]);
        let inner = tag[2..tag.len() - 2].trim_matches(['-', '+']).trim();
        text.push_str(before);
        text.push_str(&match inner {
            "generation" => tag.replacen("generation", "if true", 1),
            "endgeneration" => tag.replacen("endgeneration", "endif", 1),
            _ => tag.to_owned(),
        });
        rest = &rest[start + len + 2..];
    }
    text.push_str(rest);
    text
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
    fn refuse<T>(&self, span: Span, what: &str) -> Result<T> {
        let problem = format!("{what} is not supported: what it makes could not be bounded");
        Err(Error::Template { line: Some(span.start_line.into()), problem })
    }

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
                    return self.refuse(each.span(), "a recursive loop");
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
            Stmt::Set(set) => self.expression(&set.expr),
            Stmt::SetBlock(set) => {
                set.filter.iter().try_for_each(|filter| self.expression(filter))?;
                self.all(&set.body)
            }
            Stmt::FilterBlock(block) => {
                self.expression(&block.filter)?;
                self.all(&block.body)
            }
            Stmt::AutoEscape(block) => self.refuse(block.span(), "autoescape"),
            Stmt::Macro(one) => {
                one.defaults.iter().try_for_each(|value| self.expression(value))?;
                self.all(&one.body)
            }
            Stmt::CallBlock(block) => self.refuse(block.span(), "a call block"),
            Stmt::Do(call) => {
                self.expression(&call.call.expr)?;
                self.arguments(&call.call.args)
            }
            Stmt::Continue(_) | Stmt::Break(_) => Ok(()),
            Stmt::Block(one) => self.refuse(one.span(), "block"),
            Stmt::Import(one) => self.refuse(one.span(), "import"),
            Stmt::FromImport(one) => self.refuse(one.span(), "import"),
            Stmt::Extends(one) => self.refuse(one.span(), "extends"),
            Stmt::Include(one) => self.refuse(one.span(), "include"),
        }
    }

    fn expression(&mut self, expression: &Expr<'_>) -> Result<()> {
        match expression {
            Expr::Var(_) | Expr::Const(_) => Ok(()),
            Expr::Slice(slice) => {
                self.expression(&slice.expr)?;
                let bounds = [&slice.start, &slice.stop, &slice.step];
                bounds.into_iter().flatten().try_for_each(|bound| self.expression(bound))
            }
            Expr::UnaryOp(one) => self.expression(&one.expr),
            Expr::BinOp(both) => {
                match both.op {
                    BinOpKind::Add => self.call(ADD, both.span(), &both.left, '+')?,
                    BinOpKind::Concat => self.call(CONCAT, both.span(), &both.left, '~')?,
                    BinOpKind::Mul => return self.refuse(both.span(), "*"),
                    BinOpKind::Pow => return self.refuse(both.span(), "**"),
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
            Expr::List(list) => list.items.iter().try_for_each(|item| self.expression(item)),
            Expr::Map(map) => map.keys.iter().chain(&map.values).try_for_each(|item| self.expression(item)),
        }
    }

    fn arguments(&mut self, arguments: &[CallArg<'_>]) -> Result<()> {
        arguments.iter().try_for_each(|argument| match argument {
            CallArg::Pos(value) | CallArg::Kwarg(_, value) => self.expression(value),
            CallArg::PosSplat(value) | CallArg::KwargSplat(value) => self.expression(value),
        })
    }

    /// Turns `left op right` into a call of a function.
    fn call(&mut self, function: &'static str, span: Span, left: &Expr<'_>, op: char) -> Result<()> {
        let (start, end) = (span.start_offset as usize, span.end_offset as usize);
        // Behind the left one stand spaces, the brackets that close it, and the sign.
        let behind = left.span().end_offset as usize;
        let rest = self.source.get(behind..end).unwrap_or_default();
        let sign = rest.find(|c: char| !c.is_whitespace() && c != ')');
        let Some(sign) = sign.filter(|at| rest[*at..].starts_with(op)) else {
            return self.refuse(span, &format!("{op} as it is written here"));
        };
        self.edits.push(Edit { at: start, removes: 0, text: function });
        self.edits.push(Edit { at: behind + sign, removes: 1, text: "," });
        self.edits.push(Edit { at: end, removes: 0, text: ")" });
        Ok(())
    }
}
