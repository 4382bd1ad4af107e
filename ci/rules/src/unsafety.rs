//! Where unsafe code may stand.

use std::collections::BTreeSet;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

use crate::rules::{Finding, Rules};
use crate::source::{Source, is_for_tests};

#[cfg(test)]
mod tests;

/// Finds the first unsafe line of a file, in code that is not for tests alone.
#[derive(Default)]
struct Search {
    line: Option<usize>,
}

impl Search {
    fn found(&mut self, span: proc_macro2::Span) {
        self.line.get_or_insert(span.start().line);
    }

    fn tokens(&mut self, tokens: TokenStream) {
        for token in tokens {
            match token {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Ident(word) if word == "unsafe" => self.found(word.span()),
                _ => {}
            }
        }
    }
}

impl<'ast> Visit<'ast> for Search {
    fn visit_expr_unsafe(&mut self, node: &'ast syn::ExprUnsafe) {
        self.found(node.unsafe_token.span);
    }

    fn visit_signature(&mut self, node: &'ast syn::Signature) {
        if let Some(token) = &node.unsafety {
            self.found(token.span);
        }
        visit::visit_signature(self, node);
    }

    fn visit_item_impl(&mut self, node: &'ast syn::ItemImpl) {
        if is_for_tests(&node.attrs) {
            return;
        }
        if let Some(token) = &node.unsafety {
            self.found(token.span);
        }
        visit::visit_item_impl(self, node);
    }

    fn visit_item_mod(&mut self, node: &'ast syn::ItemMod) {
        if !is_for_tests(&node.attrs) {
            visit::visit_item_mod(self, node);
        }
    }

    fn visit_macro(&mut self, node: &'ast syn::Macro) {
        self.tokens(node.tokens.clone());
    }
}

fn unsafe_line(file: &syn::File) -> Option<usize> {
    let mut search = Search::default();
    search.visit_file(file);
    search.line
}

/// Unsafe code stands only in the listed files, and the list names no file that has none.
pub(crate) fn check(files: &[Source], rules: &Rules) -> Vec<Finding> {
    let allowed: BTreeSet<&str> = rules.unsafe_files.iter().map(String::as_str).collect();
    let mut used = BTreeSet::new();
    let mut findings = Vec::new();
    for source in files {
        let Some(line) = unsafe_line(&source.file) else {
            continue;
        };
        let path = source.path.display().to_string();
        if !allowed.contains(path.as_str()) {
            findings.push(Finding::Error(format!(
                "{path}:{line}: unsafe code outside of the files that may hold it: move it into one of them, or add the \
                 file to ci/rules/rules.json and say why in the file's head"
            )));
        }
        used.insert(path);
    }
    for path in allowed.iter().filter(|path| !used.contains(**path)) {
        findings.push(Finding::Error(format!(
            "{path} is listed in ci/rules/rules.json, but holds no unsafe code: take it off the list"
        )));
    }
    findings
}
