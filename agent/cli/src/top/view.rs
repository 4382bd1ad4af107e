//! What `top` shows: a state and its picture.

use ratatui::Frame;
use ratatui::crossterm::event::KeyCode;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Row, Table};

use crate::stats::{self, Usage};

/// By what the rows are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Cpu,
    Memory,
    Name,
}

/// The table and how it is ordered.
#[derive(Debug)]
pub(super) struct View {
    usages: Vec<Usage>,
    order: Order,
    /// Why the figures are not of now.
    trouble: Option<String>,
}

impl View {
    pub(super) fn new(usages: Vec<Usage>) -> Self {
        let mut view = Self {
            usages,
            order: Order::Cpu,
            trouble: None,
        };
        view.sort();
        view
    }

    /// Takes new figures.
    pub(super) fn show(&mut self, usages: Vec<Usage>) {
        self.usages = usages;
        self.trouble = None;
        self.sort();
    }

    /// Keeps the old figures, and says why.
    pub(super) fn trouble(&mut self, text: String) {
        self.trouble = Some(text);
    }

    pub(super) fn key(&mut self, key: KeyCode) {
        self.order = match key {
            KeyCode::Char('c') => Order::Cpu,
            KeyCode::Char('m') => Order::Memory,
            KeyCode::Char('n') => Order::Name,
            _ => self.order,
        };
        self.sort();
    }

    fn sort(&mut self) {
        self.usages.sort_by(|a, b| {
            let first = match self.order {
                Order::Cpu => b.cpu_percent.total_cmp(&a.cpu_percent),
                Order::Memory => b.now.memory_bytes.cmp(&a.now.memory_bytes),
                Order::Name => std::cmp::Ordering::Equal,
            };
            first.then_with(|| a.now.name.cmp(&b.now.name))
        });
    }

    fn summary(&self) -> String {
        let cpu: f64 = self.usages.iter().map(|usage| usage.cpu_percent).sum();
        let memory: u64 = self.usages.iter().map(|usage| usage.now.memory_bytes).sum();
        format!(
            "{} running, CPU {cpu:.1}%, memory {}",
            self.usages.len(),
            crate::output::human::bytes(memory)
        )
    }

    pub(super) fn draw(&self, frame: &mut Frame<'_>) {
        let [head, body, foot] =
            Layout::vertical([Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)])
                .areas(frame.area());
        frame.render_widget(Line::from(format!("secovia: {}", self.summary())), head);
        let rows = self
            .usages
            .iter()
            .map(|usage| Row::new(stats::cells(usage).map(Cell::from)));
        let widths = [
            Constraint::Fill(1),
            Constraint::Length(8),
            Constraint::Length(20),
            Constraint::Length(10),
            Constraint::Length(10),
            Constraint::Length(8),
        ];
        let bold = Style::new().add_modifier(Modifier::BOLD);
        frame.render_widget(
            Table::new(rows, widths).header(Row::new(stats::HEADINGS).style(bold)),
            body,
        );
        let help = self
            .trouble
            .clone()
            .unwrap_or_else(|| "q quit   order by: c CPU  m memory  n name".to_string());
        frame.render_widget(Line::from(help), foot);
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::stats::tests::figures;

    fn screen(view: &View) -> String {
        let mut terminal = Terminal::new(TestBackend::new(90, 6)).unwrap();
        terminal.draw(|frame| view.draw(frame)).unwrap();
        let buffer = terminal.backend().buffer();
        buffer
            .content()
            .chunks(90)
            .map(|row| {
                row.iter()
                    .map(|cell| cell.symbol())
                    .collect::<String>()
                    .trim_end()
                    .to_string()
                    + "\n"
            })
            .collect()
    }

    fn view() -> View {
        let before = [figures("a", 0, 0), figures("b", 0, 0)];
        let mut now = [figures("a", 1_000, 10_000), figures("b", 1_000, 900_000)];
        now[0].memory_bytes *= 2;
        View::new(stats::pair(&before, &now))
    }

    #[test]
    fn the_busiest_stands_first_and_keys_change_that() {
        let mut view = view();
        let first = |view: &View| screen(view).lines().nth(2).unwrap().to_string();
        assert!(first(&view).starts_with("vm-b"), "{}", screen(&view));
        view.key(KeyCode::Char('m'));
        assert!(first(&view).starts_with("vm-a"));
        view.key(KeyCode::Char('c'));
        assert!(first(&view).starts_with("vm-b"));
        view.key(KeyCode::Char('n'));
        assert!(first(&view).starts_with("vm-a"));
        view.key(KeyCode::Char('x'));
        assert!(first(&view).starts_with("vm-a"));
    }

    #[test]
    fn the_screen_has_summary_figures_and_help_or_trouble() {
        let mut view = view();
        let text = screen(&view);
        assert!(
            text.starts_with("secovia: 2 running, CPU 91.0%, memory 192 MiB\nNAME"),
            "{text}"
        );
        assert!(text.contains("90.0%") && text.contains("q quit"), "{text}");
        view.trouble("the agent is away".into());
        assert!(screen(&view).contains("the agent is away"));
        view.show(Vec::new());
        assert!(screen(&view).contains("0 running") && screen(&view).contains("q quit"));
    }
}
