//! Makes a type a page. It stands beside the pages: where the workspace is another one, askama looks for templates from the place of this
//! file and the compiler from that of a page.

/// Makes a type a page: its template, which gets `frame`, `section` and `page`, and the entry of the navigation that it belongs to.
macro_rules! page {
    ($page:ty, $path:tt, $section:expr) => {
        impl $crate::Page for $page {
            fn html(&self, frame: &$crate::Frame) -> Result<String, $crate::RenderError> {
                #[derive(askama::Template)]
                #[template(path = $path)]
                struct View<'a> {
                    frame: &'a $crate::Frame,
                    section: $crate::Section,
                    page: &'a $page,
                }
                let view = View {
                    frame,
                    section: $section,
                    page: self,
                };
                askama::Template::render(&view)
            }
        }
    };
}
pub(crate) use page;
