//! Chat templates render two conversations.

use crate::Scene;
use crate::scene::fixture;
use causalcone_chat::{ChatTemplate, Message, Specials};

/// The templates of the fixtures.
pub(super) fn templates() -> Vec<Vec<u8>> {
    let all = fixture("chat.json");
    let templates = all.as_array().into_iter().flatten().filter_map(|one| one["template"].as_str());
    templates.map(|template| template.as_bytes().to_vec()).collect()
}

pub(super) fn template(_: &Scene, data: &[u8]) -> Option<()> {
    let template = ChatTemplate::new(std::str::from_utf8(data).ok()?).ok()?;
    let turn = |role: &str, content: &str| Message { role: role.into(), content: content.into() };
    let specials = Specials { bos: Some("<s>".into()), eos: Some("</s>".into()), ..Specials::default() };
    let long = [
        turn("system", "Be {{ brief }}."),
        turn("user", " Hello\n"),
        turn("assistant", "<|im_end|>"),
        turn("user", "é"),
    ];
    let _ = template.render(&[Message::user("Hello")], true, &Specials::default());
    template.render(&long, false, &specials).ok().map(drop)
}
