//! probe
mod catalog;
use stoa_plan::Node;
#[test]
fn probe() {
    let text = std::fs::read_to_string("/tmp/s-probe.sql").unwrap();
    for sql in text.split(";;").map(str::trim).filter(|s| !s.is_empty()) {
        println!("---- {}", &sql[..sql.len().min(300)]);
        match catalog::bind(sql) {
            Ok(q) => {
                catalog::check(&q);
                println!(
                    "{}OUT {}",
                    show(&q),
                    q.output
                        .iter()
                        .map(|f| format!("{}:{:?}{}", f.name, f.ty, if f.nullable { "?" } else { "" }))
                        .collect::<Vec<_>>()
                        .join(", ")
                )
            }
            Err(e) => println!("ERROR {e}"),
        }
    }
}
fn show(query: &stoa_plan::Query) -> String {
    let mut text = String::new();
    for subplan in &query.subplans {
        text.push_str(&format!("{:?}\n", subplan.kind));
        lines(&subplan.plan, 1, &mut text);
    }
    lines(&query.root, 0, &mut text);
    text
}
fn ex(e: &stoa_plan::Expr) -> String {
    use stoa_plan::Expr::*;
    match e {
        Column(id, _) => format!("#{}", id.0),
        Literal(l) => format!("{:?}:{:?}", l.value, l.ty),
        Parameter(p, _) => format!("${}", p.0),
        Binary { op, left, right, ty } => format!("({} {op:?} {}):{ty:?}", ex(left), ex(right)),
        Unary { op, input } => format!("{op:?}({})", ex(input)),
        Cast { input, ty, safe } => format!("cast{}({} as {ty:?})", if *safe { "?" } else { "" }, ex(input)),
        Case { branches, otherwise, ty } => format!(
            "case({} else {:?}):{ty:?}",
            branches.iter().map(|(a, b)| format!("{}=>{}", ex(a), ex(b))).collect::<Vec<_>>().join(","),
            otherwise.as_ref().map(|e| ex(e))
        ),
        InList { input, list, negated } => format!(
            "{}in({}; {})",
            if *negated { "not" } else { "" },
            ex(input),
            list.iter().map(ex).collect::<Vec<_>>().join(",")
        ),
        Like { input, pattern, negated, case_insensitive, escape } => {
            format!("like({}, {}, not {negated} i {case_insensitive} esc {escape:?})", ex(input), ex(pattern))
        }
        Function { name, args, ty } => format!("{name}({}):{ty:?}", args.iter().map(ex).collect::<Vec<_>>().join(",")),
    }
}
fn lines(plan: &stoa_plan::Plan, depth: usize, text: &mut String) {
    let keys = |keys: &Vec<stoa_plan::SortKey>| {
        keys.iter().map(|k| format!("{} desc={} nf={}", ex(&k.expr), k.descending, k.nulls_first)).collect::<Vec<_>>().join(",")
    };
    let fs = |fs: Vec<stoa_plan::Field>| fs.iter().map(|c| format!("#{}={}", c.id.0, c.name)).collect::<Vec<_>>().join(" ");
    let name = match &plan.node {
        Node::Scan(scan) => format!(
            "Scan {} {} filters [{}]",
            scan.table,
            fs(plan.fields()),
            scan.filters.iter().map(ex).collect::<Vec<_>>().join(" & ")
        ),
        Node::Join(join) => format!(
            "Join {:?} nen={} on {} residual {:?}",
            match &join.kind {
                stoa_plan::JoinKind::LeftMark(f) => format!("LeftMark #{}", f.id.0),
                k => format!("{k:?}"),
            },
            join.null_equals_null,
            join.on.iter().map(|(a, b)| format!("{}={}", ex(a), ex(b))).collect::<Vec<_>>().join(","),
            join.residual.as_ref().map(ex)
        ),
        Node::Aggregate(aggregate) => format!(
            "Aggregate keys {} sets {:?} calls {}",
            aggregate.keys.iter().map(|(f, e)| format!("#{}={}", f.id.0, ex(e))).collect::<Vec<_>>().join(","),
            aggregate.grouping_sets,
            aggregate
                .calls
                .iter()
                .map(|(f, c)| format!(
                    "#{}={:?}{}({}) f={:?} o=[{}]:{:?}",
                    f.id.0,
                    c.function,
                    if c.distinct { " distinct" } else { "" },
                    c.args.iter().map(ex).collect::<Vec<_>>().join(","),
                    c.filter.as_ref().map(ex),
                    keys(&c.order_by),
                    c.ty
                ))
                .collect::<Vec<_>>()
                .join(", ")
        ),
        Node::Filter { predicate, .. } => format!("Filter {}", ex(predicate)),
        Node::Project { exprs, .. } => {
            format!("Project {}", exprs.iter().map(|(f, e)| format!("#{}={}", f.id.0, ex(e))).collect::<Vec<_>>().join(", "))
        }
        Node::Sort { keys: k, fetch, skip, .. } => format!("Sort {} fetch {fetch:?} skip {skip}", keys(k)),
        Node::Limit { fetch, skip, .. } => format!("Limit {fetch:?} skip {skip}"),
        Node::Values(v) => {
            format!("Values {:?}", v.rows.iter().map(|r| r.iter().map(ex).collect::<Vec<_>>().join(",")).collect::<Vec<_>>())
        }
        Node::Union { inputs, fields } => {
            format!("Union {} <- {:?}", fs(fields.clone()), inputs.iter().map(|(_, i)| i).collect::<Vec<_>>())
        }
        Node::Window { calls, .. } => format!("Window {:?}", calls.iter().map(|c| (&c.function, &c.frame)).collect::<Vec<_>>()),
        other => format!("{other:?}").chars().take(200).collect(),
    };
    text.push_str(&format!("{:indent$}{name}\n", "", indent = depth * 2));
    for input in plan.inputs() {
        lines(input, depth + 1, text);
    }
}
