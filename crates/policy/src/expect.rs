//! Tests a policy's expectations on the image that would be loaded.

use crate::{
    compile::{CompileOptions, compile},
    diagnostic::{Diagnostic, Errors, Severity},
    flow::Decision,
    image::Image,
    model::{Action, Decider, Expectation, FlowSpec, Moment, Policy},
};
use serde::Serialize;

/// An expectation and its outcome.
#[derive(Clone, Debug, Serialize)]
pub struct Tested {
    /// 1-based line of the expectation.
    pub line: usize,
    /// The flow.
    pub flow: FlowSpec,
    /// What was decided.
    pub decision: Decision,
    /// The name of the rule that decided; none where no rule did.
    pub rule: Option<String>,
    /// What is wrong, if anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// Tests every expectation of a policy, each at its own moment.
///
/// # Errors
/// The policy does not compile, or an expectation's program cannot be resolved.
pub fn test(policy: &Policy, options: &CompileOptions<'_>) -> Result<Vec<Tested>, Errors> {
    let all: Vec<&Expectation> =
        policy.rules.iter().flat_map(|rule| &rule.expectations).chain(&policy.expectations).collect();
    let mut images: Vec<(Option<Moment>, Image<Vec<u8>>)> = Vec::new();
    let mut tested = Vec::new();
    for expectation in all {
        let place = |message: String| {
            Diagnostic::new(Severity::Error, &policy.path, &policy.text, expectation.span.clone()).message(message)
        };
        let failed = |message: String| Errors { diagnostics: vec![place(message)] };
        let at = expectation.at.or(options.at);
        let known = images.iter().position(|(moment, _)| *moment == at);
        let index = match known {
            Some(index) => index,
            None => {
                let bytes =
                    compile(policy, &CompileOptions { application: options.application, key: options.key, at })?;
                images.push((at, Image::validate(bytes).map_err(|error| failed(error.to_string()))?));
                images.len() - 1
            }
        };
        let image = &images[index].1;
        let decision = expectation.flow.with(options.application, |flow| image.decide(flow)).map_err(failed)?;
        let rule = decision.rule.and_then(|rule| image.rule_name(rule)).map(str::to_owned);
        tested.push(Tested {
            line: place(String::new()).line,
            flow: expectation.flow.clone(),
            decision,
            failure: failure(expectation, &decision, rule.as_deref()),
            rule,
        });
    }
    tested.sort_by_key(|one| one.line);
    Ok(tested)
}

fn failure(expectation: &Expectation, decision: &Decision, rule: Option<&str>) -> Option<String> {
    let mut wrong = Vec::new();
    let word = decision.word();
    if let Some(expected) = expectation.verdict.map(Action::word).filter(|expected| *expected != word) {
        wrong.push(format!("expected {expected}, the verdict is {word}"));
    }
    let found = Decider::of(decision, rule);
    if let Some(expected) = &expectation.rule
        && !expected.is_met_by(&found)
    {
        wrong.push(format!("expected {expected} to decide, {found} does"));
    }
    (!wrong.is_empty()).then(|| wrong.join("; "))
}
